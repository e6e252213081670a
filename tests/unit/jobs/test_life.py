"""Any order of deliveries, claims, heartbeats, expiries, cancels and ends keeps the promises."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.jobs_database import JobsDatabase, jobs_database
from tests.unit.jobs.life import JobLife


@pytest.fixture
def database(postgres_url: str) -> Iterator[JobsDatabase]:
    with jobs_database(postgres_url) as database:
        yield database


def test_whatever_happens_each_job_ends_once(database: JobsDatabase) -> None:
    class Life(JobLife):
        pass

    Life.database = database
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,  # the same every time; more of it: other numbers here, by hand
            phases=[Phase.generate],  # shrinking takes minutes; the steps are told as they are
            suppress_health_check=list(HealthCheck),
        ),
    )
