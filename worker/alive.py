"""Signs of life for health checks: files whose age tells when a worker last did its work."""

from __future__ import annotations

from typing import Any

from celery.signals import heartbeat_sent, task_success

from core.config import process_settings
from core.jobs.queue import SWEEP

SWEPT = "sweeps.alive"


@heartbeat_sent.connect
def _heartbeat(sender: Any, **_: Any) -> None:
    """The worker still talks to the broker; NAME of NAME@host is the file's name."""
    _touch(f"{sender.eventer.hostname.partition('@')[0]}.alive")


@task_success.connect
def _swept(sender: Any, **_: Any) -> None:
    """Clock, broker, worker and database have done one round together."""
    if sender.name == SWEEP:
        _touch(SWEPT)


def _touch(name: str) -> None:
    folder = process_settings().data_dir / "run"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
