"""Progress of a stage: fenced, at most once a second, and not worth ending a training for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from core.config import Settings
from core.db.models import JobMetric
from core.db.session import make_engine, session_factory
from core.errors import JobCancelled, LeaseLost
from core.jobs import leases
from core.learning.trainer import Progress
from core.stages.context import StageContext
from core.stages.facts import load_facts
from core.storage.store import open_store
from tests.jobs_database import JobsDatabase, jobs_database


@pytest.fixture(scope="module")
def database(postgres_url: str) -> Iterator[JobsDatabase]:
    with jobs_database(postgres_url) as made:
        yield made


@pytest.fixture
def context(database: JobsDatabase, tmp_path: Path) -> StageContext:
    [job_id] = database.chain()
    with database.sessions.begin() as session:
        held = leases.claim(session, job_id, worker="w", lease_seconds=60)
        assert held is not None
        facts = load_facts(session, job_id)
    settings = Settings(data_dir=tmp_path, device="cpu", export_onnx=False, _env_file=None)
    return StageContext(
        facts,
        held,
        sessions=database.sessions,
        store=open_store(settings.store_url),
        settings=settings,
        should_stop=lambda: False,
    )


def progress(step: int, *, steps: int = 100, **more: Any) -> Progress:
    return Progress(
        step=step,
        steps=steps,
        epoch=1,
        epochs=1,
        loss=step / 2,
        images_per_second=1.0,
        seconds_left=1.0,
        **more,
    )


def report(context: StageContext, step: int) -> None:
    """Report as if a second had passed since the last time."""
    context._reported = 0.0
    context.report(progress(step))


def written(database: JobsDatabase, context: StageContext) -> list[tuple[int, float]]:
    with database.sessions.begin() as session:
        rows = select(JobMetric.step, JobMetric.value).where(JobMetric.job_id == context.job.id)
        return [(step, value) for step, value in session.execute(rows.order_by(JobMetric.step))]


def test_at_most_once_a_second_and_at_the_end(
    database: JobsDatabase, context: StageContext
) -> None:
    for step in range(1, 101):
        context.report(progress(step))
    assert written(database, context)[0] == (1, 0.5)
    assert written(database, context)[-1] == (100, 50.0)
    assert len(written(database, context)) < 10
    assert (database.row(context.job.id).progress or {})["step"] == 100


def test_what_is_measured_rarely_is_written_although_it_was_not_its_turn(
    database: JobsDatabase, context: StageContext
) -> None:
    report(context, 1)
    context.report(progress(2, probed=True))
    context.report(progress(3))
    report(context, 4)
    assert written(database, context) == [(1, 0.5), (2, 1.0), (4, 2.0)]


def test_progress_says_how_it_goes(database: JobsDatabase, context: StageContext) -> None:
    context.report(progress(1))
    said = database.row(context.job.id).progress or {}
    assert "message" not in said
    context._reported = 0.0
    metrics = {"learning_rate": 0.002, "knn_accuracy": 0.5}
    context.report(progress(2, data_wait=0.12345, message="It collapsed.", metrics=metrics))
    said = database.row(context.job.id).progress or {}
    assert (said["phase"], said["data_wait"]) == ("training", 0.123)
    assert (said["message"], said["learning_rate"]) == ("It collapsed.", 0.002)
    assert "knn_accuracy" not in said, "no look at the encoder was reported"


def test_the_last_look_at_the_encoder_stays_with_the_progress(
    database: JobsDatabase, context: StageContext
) -> None:
    looked = {"knn_accuracy": 0.5, "knn_chance": 0.1, "rankme": 3.0, "chance_loss": 5.5}
    context.report(progress(1))
    context.report(progress(2, probed=True, metrics=looked))
    context._reported = 0.0
    context.report(progress(3, metrics={"chance_loss": 5.5}))
    said = database.row(context.job.id).progress or {}
    assert {name: said[name] for name in looked} == looked
    assert said["step"] == 3


def test_a_database_that_is_briefly_away_costs_no_training_and_no_values(
    database: JobsDatabase, context: StageContext
) -> None:
    report(context, 1)
    nowhere = make_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    context.sessions = session_factory(nowhere)
    with capture_logs() as logs:
        report(context, 2)
        report(context, 3)
    assert [line["log_level"] for line in logs] == ["warning"] * 2
    nowhere.dispose()
    context.sessions = database.sessions
    report(context, 4)
    assert written(database, context) == [(1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)]
    assert (database.row(context.job.id).progress or {})["step"] == 4


def test_what_could_not_be_written_is_written_with_the_end_and_until_then_nothing_is_saved(
    database: JobsDatabase, context: StageContext
) -> None:
    report(context, 1)
    assert context.run().may_save()
    nowhere = make_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    context.sessions = session_factory(nowhere)
    report(context, 2)
    nowhere.dispose()
    assert not context.run().may_save(), "who goes on from there would not report step 2 again"
    for _ in range(2):  # a commit whose answer was lost is repeated
        with database.sessions.begin() as session:
            context.write_rest(session)
    assert written(database, context) == [(1, 0.5), (2, 1.0)]


def test_a_lost_lease_stops_it(database: JobsDatabase, context: StageContext) -> None:
    with database.sessions.begin() as session:
        leases.give_back(session, context.held)
    with pytest.raises(LeaseLost):
        report(context, 1)
    assert written(database, context) == []


def test_a_stop_is_noticed_while_images_are_prepared(context: StageContext) -> None:
    context._preparing(1, 10)
    context.should_stop = lambda: True
    with pytest.raises(JobCancelled):
        context._preparing(2, 10)
