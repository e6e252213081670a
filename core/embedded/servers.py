"""The embedded servers that a configuration needs: those that it names no URL for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import SecretStr

from core.config import Settings
from core.embedded.folder import DataFolder, claimed_folder
from core.embedded.postgres import running_url, start_postgres
from core.embedded.processes import end_leftovers
from core.embedded.supervisor import Supervisor
from core.embedded.valkey import start_valkey
from core.errors import EmbeddedServerFailed


@contextmanager
def start_servers(
    settings: Settings, *, tell: Callable[[str], None] = lambda _: None
) -> Iterator[Settings]:
    """Run the servers that the settings have no URL for; the settings with the URLs filled in.

    Leftovers of an instance that died are ended first; the servers end with the block.

    Raises:
        EmbeddedServerFailed: The data folder is not usable, or a server does not start.
    """
    with claimed_folder(settings.data_dir) as folder:
        end_leftovers(folder)
        with Supervisor(folder, tell=tell) as supervisor:
            yield with_servers(settings, supervisor, tell=tell)


def with_servers(
    settings: Settings, supervisor: Supervisor, *, tell: Callable[[str], None]
) -> Settings:
    """Start what has no URL under a supervisor; the settings with the URLs filled in."""
    found = {}
    if settings.database_url is None:
        tell("starting Postgres")
        found["database_url"] = SecretStr(start_postgres(supervisor))
    if settings.broker_url is None:
        tell("starting Valkey")
        found["broker_url"] = SecretStr(start_valkey(supervisor))
    return settings.model_copy(update=found)


def with_running_database(settings: Settings) -> Settings:
    """The settings with the URL of the embedded database that `fewlabels up` runs meanwhile.

    Raises:
        EmbeddedServerFailed: No URL is set and none runs on the data folder.
    """
    if settings.database_url is not None:
        return settings
    url = running_url(DataFolder(settings.data_dir).postgres)
    if url is None:
        raise EmbeddedServerFailed(
            f"no database: set FEWLABELS_DATABASE_URL, or start `fewlabels up` "
            f"on {settings.data_dir} first"
        )
    return settings.model_copy(update={"database_url": SecretStr(url)})
