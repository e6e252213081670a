"""Thinned series keep what one sees; places in the queue; time left with how it was told."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import insert

from core.db.models import Job, JobMetric
from core.jobs.series import LEAST_POINTS, Series, list_series
from core.jobs.standing import TimeLeft, queue_positions, time_left
from tests.jobs_database import JobsDatabase


def series_of(
    database: JobsDatabase, job_id: UUID, *, points: int | None, name: str | None = None
) -> dict[str, Series]:
    row = database.row(job_id)
    with database.sessions.begin() as session:
        return {one.name: one for one in list_series(session, row, name=name, points=points)}


@pytest.fixture
def noisy(database: JobsDatabase) -> tuple[UUID, dict[str, list[float]]]:
    """A job with a long series with one peak, a short one, and one of a single point."""
    [job_id] = database.chain()
    random = np.random.default_rng(7)
    long = (np.linspace(5, 1, 3000) + random.normal(0, 0.01, 3000)).tolist()
    long[1234], long[2222] = 99.0, -99.0
    told = {"loss": long, "accuracy": [0.1, 0.5, 0.4], "once": [3.0]}
    rows = [
        {"job_id": job_id, "name": name, "step": step, "value": value}
        for name, values in told.items()
        for step, value in enumerate(values, 1)
    ]
    with database.sessions.begin() as session:
        session.execute(insert(JobMetric), rows)
    return job_id, told


def test_all_points_come_in_order(
    database: JobsDatabase, noisy: tuple[UUID, dict[str, list[float]]]
) -> None:
    job_id, told = noisy
    found = series_of(database, job_id, points=None)
    assert {name: one.values for name, one in found.items()} == told
    assert found["loss"].steps == list(range(1, 3001))
    assert set(series_of(database, job_id, points=None, name="once")) == {"once"}


@pytest.mark.parametrize("points", [LEAST_POINTS, 5, 50, 51, 500, 2999])
def test_few_points_keep_the_ends_and_the_peaks(
    database: JobsDatabase, noisy: tuple[UUID, dict[str, list[float]]], points: int
) -> None:
    job_id, told = noisy
    found = series_of(database, job_id, points=points)
    loss = found["loss"]
    assert points * 0.9 - 3 <= len(loss.steps) <= points
    assert loss.steps == sorted(set(loss.steps))
    assert [told["loss"][step - 1] for step in loss.steps] == loss.values
    assert (loss.steps[0], loss.steps[-1]) == (1, 3000)
    assert {1235, 2223} <= set(loss.steps)
    assert found["accuracy"].values == told["accuracy"]  # has few enough
    assert found["once"].values == [3.0]


def test_the_place_in_the_queue_is_by_age_among_the_queued(database: JobsDatabase) -> None:
    first, second, third = (database.chain()[0] for _ in range(3))
    waiting = database.chain(needs=third)[0]
    with database.sessions.begin() as session:
        places = queue_positions(session, [third, first, second, waiting])
        assert queue_positions(session, []) == {}
    assert places[second] - places[first] == 1 == places[third] - places[second]
    assert waiting not in places


def job(state: str, progress: dict[str, float] | None, **plan: object) -> Job:
    return Job(state=state, progress=progress, plan=plan)


def test_time_left_says_what_it_was_estimated_from() -> None:
    progress = {"seconds_left": 12.5}
    assert time_left(job("running", progress, steps=10)) == TimeLeft(12.5, "recent pace")
    budget = job("running", progress, steps=None, budget_minutes=3)
    assert time_left(budget) == TimeLeft(12.5, "budget")
    assert time_left(job("running", {"step": 1})) is None
    assert time_left(job("running", None)) is None
    assert time_left(job("failed", progress)) is None
