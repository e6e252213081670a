"""The migrations of the database, up and down."""

from __future__ import annotations

import time
from importlib.resources import as_file, files

from alembic import command
from alembic.config import Config
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError

MIGRATION_LOCK = 7_203_114_905_617_883  # any number, the same in every process
# Whoever waits for a table's lock holds up all who come after him. So a migration waits this long,
# lets the others pass, and tries again.
LOCK_SECONDS, PAUSE_SECONDS, TRIES = 3.0, 3.0, 40


def migration_config(connection: Connection | None = None) -> Config:
    """Alembic's settings; the migrations are found inside the installed package."""
    config = Config()
    with as_file(files("migrations")) as folder:
        config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database up to date; concurrent callers wait for each other.

    Raises:
        OperationalError: Others held a table for minutes, a dump for instance; nothing has changed.
    """
    engine = create_engine(url)
    try:
        with engine.connect() as guard:
            guard.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK})
            for left in reversed(range(TRIES)):
                try:
                    _upgrade(engine, revision)
                    break
                except OperationalError as error:
                    if not isinstance(error.orig, LockNotAvailable) or left == 0:
                        raise
                time.sleep(PAUSE_SECONDS)
            guard.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": MIGRATION_LOCK})
    finally:
        engine.dispose()


def _upgrade(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS:g}s'"))
        command.upgrade(migration_config(connection), revision)


def downgrade(url: str, revision: str = "base") -> None:
    """Take migrations back; for tests and for a roll-back by hand."""
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            command.downgrade(migration_config(connection), revision)
    finally:
        engine.dispose()
