"""Embed and evaluate jobs on real workers: killed and cancelled where it hurts, and done once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
from sqlalchemy import Connection, func, select, text
from sqlalchemy.engine import Engine as Database

from core.db.models import Model
from core.db.vectors import Embedding, Report
from core.jobs.service import cancel_job, retry_job
from core.search.index import index_name, is_ready
from tests.integration.job_engine import IMAGES, TINY, Engine, gone, job_engine, wait_until

SECONDS = 60


@pytest.fixture(scope="module")
def engine(
    postgres_url: str, broker_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    with job_engine(postgres_url, broker_url, tmp_path_factory.mktemp("reports")) as running:
        running.start("sweeps")
        running.running_worker()
        yield running


@pytest.fixture(scope="module")
def model_id(engine: Engine) -> UUID:
    [job_id] = engine.submit("pretrain", **TINY, epochs=1)
    engine.wait_for(job_id, "succeeded")
    [model] = engine.models(job_id)
    return model.id


def database(engine: Engine) -> Database:
    bound: Database = engine.sessions.kw["bind"]
    return bound


def embed(engine: Engine, model_id: UUID) -> UUID:
    return engine.submit("embed", model_id=str(model_id), index="hnsw")[0]


@contextmanager
def locked_vectors(engine: Engine) -> Iterator[Connection]:
    """Nobody can put vectors until the block ends."""
    with database(engine).connect() as connection, connection.begin():
        connection.execute(text("LOCK TABLE embeddings IN SHARE MODE"))
        yield connection


@contextmanager
def old_snapshot(engine: Engine) -> Iterator[None]:
    """An index that is built meanwhile waits for this transaction to end."""
    with database(engine).connect() as connection:
        connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            connection.execute(text("SELECT count(*) FROM embeddings"))
            yield


def waits(engine: Engine, statement: str) -> bool:
    """Whether the database holds up such a statement."""
    with database(engine).connect() as connection:
        held = text(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND datname = current_database() AND query LIKE :start"
        )
        return bool(connection.scalar(held, {"start": f"{statement}%"}))


def stored(engine: Engine, model_id: UUID) -> int:
    with engine.sessions.begin() as session:
        counted = select(func.count()).where(Embedding.model_id == model_id)
        return int(session.scalars(counted).one())


def test_killed_while_it_stores_vectors(engine: Engine, model_id: UUID) -> None:
    with locked_vectors(engine):
        job_id = embed(engine, model_id)
        wait_until(
            lambda: waits(engine, "WITH found"),
            "vectors on their way",
            seconds=SECONDS,
            show=lambda: engine.log(job_id),
        )
        child = engine.child_of(job_id)
        child.kill()
        wait_until(lambda: gone(child), "the end of the child")
    row = engine.wait_for(job_id, "succeeded")
    assert row.attempt == 2
    assert stored(engine, model_id) == IMAGES
    with engine.sessions.begin() as session:
        body = session.get_one(Report, job_id).body
        assert body["vectors"] == body["embedded"] + body["there_before"] == IMAGES
        assert is_ready(session, model_id)


def test_cancelled_while_its_index_is_built_and_retried(engine: Engine, model_id: UUID) -> None:
    with engine.sessions.begin() as session:
        session.execute(text(f"DROP INDEX {index_name(model_id)}"))
    with old_snapshot(engine):
        job_id = embed(engine, model_id)
        wait_until(
            lambda: waits(engine, "CREATE INDEX"),
            "an index that waits",
            seconds=SECONDS,
            show=lambda: engine.log(job_id),
        )
        child = engine.child_of(job_id)
        with engine.sessions.begin() as session:
            assert cancel_job(session, engine.caller, job_id).state == "cancelling"
        engine.wait_for(job_id, "cancelled")
        assert gone(child)
        assert not waits(engine, "CREATE INDEX")
    with engine.sessions.begin() as session:
        assert not is_ready(session, model_id)
        assert session.get(Report, job_id) is None
        assert retry_job(session, engine.caller, job_id).state == "queued"
    engine.wait_for(job_id, "succeeded")
    with engine.sessions.begin() as session:
        assert is_ready(session, model_id)
        report = session.get_one(Report, job_id).body
        assert (report["there_before"], report["embedded"]) == (IMAGES, 0)
        assert session.scalars(select(func.count()).select_from(Model)).one() == 1
