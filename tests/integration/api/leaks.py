"""The logs of the whole test run, and the secrets that must not stand in them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import api.main
from core import auth, cli
from core.config import Settings
from core.telemetry import configure_logging


@dataclass
class LogWatch:
    """Everything that was logged as it was rendered, and every secret that was in use."""

    log: Path
    others: list[Path] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)

    def leaks(self) -> list[str]:
        """Lines with a secret in them, shortened, and their files."""
        found = []
        for path in [self.log, *self.others]:
            for line in path.read_text(errors="replace").splitlines():
                if any(secret in line for secret in self.secrets):
                    found.append(f"{path.name}: {line[:300]}")
        return found

    @property
    def text(self) -> str:
        return self.log.read_text()


@contextmanager
def watching(log: Path) -> Iterator[LogWatch]:
    """Note every key that is made, and write down what the loggers of the API render."""
    watch = LogWatch(log)
    with log.open("a") as stream, pytest.MonkeyPatch.context() as patch:
        copy = logging.StreamHandler(stream)
        real_key = auth.create_key

        def noted_key(*arguments: Any, **wishes: Any) -> Any:
            key, secret = real_key(*arguments, **wishes)
            watch.secrets |= {secret, secret.removeprefix(auth.KEY_PREFIX)}
            return key, secret

        def copied_logging(settings: Settings) -> None:
            configure_logging(settings)
            root = logging.getLogger()
            copy.setFormatter(root.handlers[0].formatter)
            root.addHandler(copy)
            watch.secrets |= passwords(settings)

        patch.setattr(auth, "create_key", noted_key)
        patch.setattr(cli, "create_key", noted_key)
        patch.setattr(api.main, "configure_logging", copied_logging)
        try:
            yield watch
        finally:
            logging.getLogger().removeHandler(copy)


def passwords(settings: Settings) -> set[str]:
    """The passwords in the addresses of the servers."""
    addresses = (settings.database_url, settings.broker_url, settings.blob_url)
    urls = [address.get_secret_value() for address in addresses if address is not None]
    return {password for url in urls if (password := urlsplit(url).password)}
