"""The life of a job: which steps it has, and that each is taken once."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from itertools import product
from typing import Any
from uuid import UUID

import pytest

from core.errors import IllegalTransition
from core.jobs.states import ALLOWED, FINISHED, LEASED, JobState, move
from tests.jobs_database import JobsDatabase

# Written down a second time on purpose: from the state diagram of the design, not from the code.
STEPS = {
    "waiting": {"queued", "failed", "cancelled"},
    "queued": {"running", "cancelled"},
    "running": {"succeeded", "failed", "crashed", "cancelling", "queued"},
    "cancelling": {"cancelled"},
    "succeeded": set(),
    "failed": {"queued", "waiting"},
    "crashed": {"queued", "waiting"},
    "cancelled": {"queued", "waiting"},
}
PAIRS = list(product(JobState, JobState))
NOW = datetime.now(UTC)


def in_state(database: JobsDatabase, state: JobState) -> UUID:
    """A job with what the database demands of the state."""
    needed, job_id = database.chain(2)
    database.set(needed, state="succeeded", finished_at=NOW)
    database.set(job_id, state=state, **demanded(state))
    return job_id


def demanded(state: JobState) -> dict[str, Any]:
    return {
        "lease_expires_at": NOW if state in LEASED else None,
        "finished_at": NOW if state in FINISHED else None,
        "error_code": "Broken" if state in {JobState.FAILED, JobState.CRASHED} else None,
    }


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=lambda state: str(state))
def test_a_step_is_taken_or_refused(
    database: JobsDatabase, source: JobState, target: JobState
) -> None:
    job_id = in_state(database, source)
    values = {
        name: value
        for name, value in demanded(target).items()
        if name == "error_code" or value is not None or target not in FINISHED | LEASED
    }
    with database.sessions.begin() as session:
        if target in STEPS[source]:
            assert move(session, job_id, source, target, **values)
        else:
            with pytest.raises(IllegalTransition, match=f"{source} to {target}"):
                move(session, job_id, source, target, **values)
    row = database.row(job_id)
    assert row.state == (target if target in STEPS[source] else source)
    assert (row.finished_at is not None) == (row.state in FINISHED)
    assert (row.lease_expires_at is not None) == (row.state in LEASED)


def test_every_state_has_its_steps() -> None:
    assert {str(state): {str(t) for t in targets} for state, targets in ALLOWED.items()} == STEPS


@pytest.mark.parametrize("actual", [state for state in JobState if state != JobState.QUEUED])
def test_move_is_false_when_the_state_is_another(database: JobsDatabase, actual: JobState) -> None:
    job_id = in_state(database, actual)
    with database.sessions.begin() as session:
        assert not move(session, job_id, JobState.QUEUED, JobState.CANCELLED)
    assert database.row(job_id).state == actual


def test_move_is_false_with_an_old_token(database: JobsDatabase) -> None:
    job_id = in_state(database, JobState.RUNNING)
    database.set(job_id, fencing_token=7)
    with database.sessions.begin() as session:
        assert not move(session, job_id, JobState.RUNNING, JobState.SUCCEEDED, token=6)
        assert move(session, job_id, JobState.RUNNING, JobState.SUCCEEDED, token=7)


def test_of_two_at_once_one_moves(database: JobsDatabase) -> None:
    [job_id] = database.chain()
    ready = threading.Barrier(8)
    moved: list[bool] = []

    def cancel() -> None:
        with database.sessions.begin() as session:
            session.connection()
            ready.wait(10)
            moved.append(move(session, job_id, JobState.QUEUED, JobState.CANCELLED))

    threads = [threading.Thread(target=cancel) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(moved) == [False] * 7 + [True]
