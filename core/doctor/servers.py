"""Checks of the servers behind the three URLs."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator

import redis
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from core.config import Settings
from core.db.migrating import migration_config
from core.db.session import make_engine
from core.doctor.finding import Finding, Level
from core.embedded.servers import with_running_database
from core.errors import EmbeddedServerFailed, FewlabelsError
from core.storage.store import open_store

OLDEST_POSTGRES = 14
OLDEST_VECTOR = (0, 8)
CLOCK_WARNING, CLOCK_FAILURE = 1.0, 10.0
PATIENCE_SECONDS = 5.0
EMBEDDED = "`fewlabels up` starts one of its own"


def check_database(settings: Settings) -> Iterator[Finding]:
    """Reachable, new enough, migrated, with pgvector, and of the same time."""
    try:
        settings = with_running_database(settings)
    except EmbeddedServerFailed:
        said = f"FEWLABELS_DATABASE_URL is not set and none runs; {EMBEDDED}"
        yield Finding("database", "skipped", said)
        return
    engine = make_engine(settings.sqlalchemy_url, pool_size=1)
    try:
        with engine.connect() as connection:
            yield from (_version(connection), _vector(connection), _migrations(connection))
            yield _clock(connection)
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        remedy = "start Postgres, or mend FEWLABELS_DATABASE_URL (host, port, user, password, name)"
        yield Finding("database", "failure", said, remedy)
    finally:
        engine.dispose()


def _version(connection: Connection) -> Finding:
    number = int(str(connection.scalar(text("SHOW server_version_num")))) // 10_000
    if number < OLDEST_POSTGRES:
        remedy = f"use Postgres {OLDEST_POSTGRES} or newer"
        return Finding("database", "failure", f"Postgres {number}", remedy)
    return Finding("database", "ok", f"Postgres {number}")


def _vector(connection: Connection) -> Finding:
    there = "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
    used = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    found = connection.scalar(text(used)) or connection.scalar(text(there))
    if found is None:
        remedy = "install pgvector beside Postgres (package postgresql-NN-pgvector)"
        return Finding("pgvector", "failure", "not installed", remedy)
    if tuple(int(part) for part in str(found).split(".")[:2]) < OLDEST_VECTOR:
        remedy = "install pgvector 0.8 or newer, then ALTER EXTENSION vector UPDATE"
        return Finding("pgvector", "failure", f"pgvector {found}", remedy)
    return Finding("pgvector", "ok", f"pgvector {found}")


def _migrations(connection: Connection) -> Finding:
    current = set(MigrationContext.configure(connection).get_current_heads())
    wanted = set(ScriptDirectory.from_config(migration_config()).get_heads())
    if current == wanted:
        return Finding("migrations", "ok", f"at {', '.join(sorted(current))}")
    said = f"at {', '.join(sorted(current)) or 'nothing'}, {', '.join(sorted(wanted))} is needed"
    remedy = "run `fewlabels migrate`; if the database is newer, install its version of fewlabels"
    return Finding("migrations", "failure", said, remedy)


def _clock(connection: Connection) -> Finding:
    asked = time.time()
    there = float(connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0)
    apart = abs(there - (asked + time.time()) / 2)
    said = f"{apart:.1f} s from the database's"
    if apart < CLOCK_WARNING:
        return Finding("clock", "ok", said)
    level: Level = "failure" if apart > CLOCK_FAILURE else "warning"
    remedy = "let both machines set their clocks by NTP (chrony, systemd-timesyncd)"
    return Finding("clock", level, said, remedy)


def check_broker(settings: Settings) -> Iterator[Finding]:
    """Answers, and says what it is."""
    if settings.broker_url is None:
        said = f"FEWLABELS_BROKER_URL is not set; {EMBEDDED}"
        yield Finding("broker", "skipped", said)
        return
    try:
        client = redis.Redis.from_url(
            settings.broker_url.get_secret_value(),
            socket_timeout=PATIENCE_SECONDS,
            socket_connect_timeout=PATIENCE_SECONDS,
        )
        with client:
            found = client.info("server")
    except (redis.RedisError, OSError, ValueError) as error:
        remedy = "start Redis or Valkey, or mend FEWLABELS_BROKER_URL (host, port, password)"
        yield Finding("broker", "failure", str(error), remedy)
        return
    kind = "Valkey" if "valkey_version" in found else "Redis"
    version = found.get("valkey_version") or found["redis_version"]
    yield Finding("broker", "ok", f"{kind} {version}")


def check_blobs(settings: Settings) -> Iterator[Finding]:
    """A small blob can be written, read and deleted."""
    if settings.blob_url is None and not settings.data_dir.exists():
        said = f"FEWLABELS_BLOB_URL is not set and {settings.data_dir} is not there yet"
        yield Finding("blobs", "skipped", said)
        return
    data = f"fewlabels doctor {os.getpid()} {time.time_ns()}".encode()
    key = f"checks/{hashlib.sha256(data).hexdigest()}"
    kind = "folder" if settings.store_url.startswith("file:") else "object store"
    remedy = (
        "give the user of the service the folder, and room on its disk"
        if kind == "folder"
        else "mend FEWLABELS_BLOB_URL (host, port, keys, bucket); the key must be allowed to "
        "list, read, write and delete"
    )
    try:
        store = open_store(settings.store_url)
        store.prepare()
        store.put(key, data)
        try:
            same = store.get(key) == data
        finally:
            store.delete(key)
    except (FewlabelsError, OSError) as error:
        yield Finding("blobs", "failure", f"{kind}: {error}", remedy)
        return
    if not same:
        yield Finding("blobs", "failure", f"{kind}: other bytes came back than went in", remedy)
        return
    yield Finding("blobs", "ok", f"{kind}: written, read and deleted")
