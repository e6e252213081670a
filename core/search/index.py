"""An HNSW index for the vectors of one model: named after it, built beside running searches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from uuid import UUID

from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from core.db.vectors import MOST_INDEXED_DIMENSIONS
from core.errors import JobCancelled
from core.telemetry import logger

log = logger(__name__)
PREFIX = "hnsw_"
NEIGHBOURS, BREADTH = 16, 64  # m and ef_construction, pgvector's defaults
POLL_SECONDS = 0.5
_PROGRESS = text(
    "SELECT phase, tuples_done, tuples_total, blocks_done, blocks_total "
    "FROM pg_stat_progress_create_index WHERE pid = :pid"
)


def index_name(model_id: UUID) -> str:
    """The index of the model's vectors."""
    return f"{PREFIX}{model_id.hex}"


def is_ready(session: Session, model_id: UUID) -> bool:
    """Whether the model has an index that can be searched."""
    statement = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
    return bool(session.scalar(statement, {"name": index_name(model_id)}))


def build_index(
    engine: Engine,
    model_id: UUID,
    dimension: int,
    *,
    memory_mb: int,
    should_stop: Callable[[], bool],
    on_progress: Callable[[str, int, int], None],
) -> bool:
    """Make the model's index where there is none, without holding up those who write or search.

    Args:
        engine: Where to take connections from.
        model_id: Whose vectors.
        dimension: Their length.
        memory_mb: What the server may use.
        should_stop: Asked every half second.
        on_progress: Called with a phase, and how far it is of how much.

    Returns:
        Whether there is one; False for vectors that are too long.

    Raises:
        JobCancelled: It was stopped; what is left of the index is removed by the next attempt.
    """
    if dimension > MOST_INDEXED_DIMENSIONS:
        return False
    with _plain(engine) as connection:
        _take_turn(connection, model_id, should_stop)
        _drop_unfinished(connection, model_id)
        _drop_orphans(connection)
        # Notices within a second that this process was killed, and ends the build.
        connection.execute(text("SET client_connection_check_interval = '1s'"))
        connection.execute(text(f"SET maintenance_work_mem = '{int(memory_mb)}MB'"))
        building = _Build(connection, model_id, dimension)
        try:
            with _plain(engine) as watching:
                while not building.wait(POLL_SECONDS):
                    if should_stop():
                        building.cancel()
                    row = watching.execute(_PROGRESS, {"pid": building.pid}).one_or_none()
                    if row is not None:
                        done = (row.tuples_done, row.tuples_total)
                        if not row.tuples_total:
                            done = (row.blocks_done, row.blocks_total)
                        on_progress(f"building the index: {row.phase}", *done)
        finally:
            building.cancel()
            building.wait(None)
            connection.invalidate()  # its settings and its lock end with it
    if should_stop():
        raise JobCancelled("stopped while the index was being built")
    building.result()
    return True


class _Build:
    """CREATE INDEX in a thread, since it answers when it is done."""

    def __init__(self, connection: Connection, model_id: UUID, dimension: int) -> None:
        self._connection = connection
        self._error: Exception | None = None
        self._driver = connection.connection.driver_connection
        self.pid = connection.scalar(text("SELECT pg_backend_pid()"))
        # CONCURRENTLY: a plain one would keep every embed job and every deletion waiting.
        self._statement = text(
            f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {index_name(model_id)} ON embeddings "
            f"USING hnsw ((embedding::halfvec({int(dimension)})) halfvec_cosine_ops) "
            f"WITH (m = {NEIGHBOURS}, ef_construction = {BREADTH}) WHERE model_id = '{model_id}'"
        )
        self._thread = threading.Thread(target=self._run, name="build index", daemon=True)
        self._thread.start()

    def wait(self, seconds: float | None) -> bool:
        """Whether it has ended by then."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """Ask the server to stop it; nothing happens when it has ended."""
        if self._thread.is_alive() and self._driver is not None:
            self._driver.cancel_safe()

    def result(self) -> None:
        """Raise what the server said."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._connection.execute(self._statement)
        except Exception as error:  # noqa: BLE001 - raised again by result
            self._error = error


def _plain(engine: Engine) -> Connection:
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def _take_turn(connection: Connection, model_id: UUID, should_stop: Callable[[], bool]) -> None:
    """Wait for another job that builds this index.

    Asked again and again: whoever waits inside a statement holds a snapshot, which the build of
    the other would wait for in turn.
    """
    key = int.from_bytes(model_id.bytes[:8], "big", signed=True)
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}):
        if should_stop():
            raise JobCancelled("stopped while another job was building the index")
        time.sleep(POLL_SECONDS)


def _drop_unfinished(connection: Connection, model_id: UUID) -> None:
    statement = text("SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
    if connection.scalar(statement, {"name": index_name(model_id)}):
        connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {index_name(model_id)}"))


def _drop_orphans(connection: Connection) -> None:
    """Remove the indexes of models that were deleted: dropping takes a lock that requests avoid."""
    orphans = connection.scalars(
        text(
            "SELECT c.relname FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid "
            "WHERE i.indrelid = 'embeddings'::regclass AND c.relname ~ '^hnsw_[0-9a-f]{32}$' "
            "AND NOT EXISTS (SELECT FROM models "
            "WHERE replace(models.id::text, '-', '') = substr(c.relname, 6))"
        )
    ).all()
    for name in orphans:
        log.info("index of a deleted model dropped", index=name)
        connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))
