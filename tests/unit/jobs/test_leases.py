"""Claims, leases and fencing: nobody works on a job that another one holds."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.db.models import JobMetric, Model
from core.errors import LeaseLost
from core.jobs import leases, sweeping
from core.jobs.leases import Claim, Death
from core.jobs.service import cancel_job, fail, job_model_id, record_progress, succeed
from tests.jobs_database import PLENTY, JobsDatabase

PAST = datetime.now(UTC) - timedelta(seconds=60)


def claim(database: JobsDatabase, job_id: UUID, *, lease_seconds: float = 30) -> Claim | None:
    with database.sessions.begin() as session:
        return leases.claim(session, job_id, worker="here:1", lease_seconds=lease_seconds)


def claimed(database: JobsDatabase, *, max_attempts: int = 3) -> Claim:
    [job_id] = database.chain(max_attempts=max_attempts)
    held = claim(database, job_id)
    assert held is not None
    return held


def sweep(database: JobsDatabase, *, hints_waiting: dict[str, int] = PLENTY) -> int:
    with database.sessions.begin() as session:
        return sweeping.sweep(session, hints_waiting=hints_waiting)[0]


def expire(database: JobsDatabase, held: Claim) -> None:
    database.set(held.job_id, lease_expires_at=PAST)


def model_of(database: JobsDatabase, job_id: UUID) -> Model:
    return Model(
        id=uuid4(),
        project_id=database.caller.project_id,
        job_id=job_id,
        kind="encoder",
        manifest={},
        manifest_sha256="0" * 64,
    )


def test_of_many_workers_one_gets_the_job(database: JobsDatabase) -> None:
    [job_id] = database.chain()
    ready = threading.Barrier(8)
    got: list[Claim | None] = []

    def work() -> None:
        with database.sessions.begin() as session:
            session.connection()
            ready.wait(10)
            got.append(leases.claim(session, job_id, worker="w", lease_seconds=30))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [held for held in got if held] == [Claim(job_id, 1, 1)]
    assert len(got) == 8


def test_only_a_queued_job_can_be_claimed(database: JobsDatabase) -> None:
    _, waiting = database.chain(2)
    held = claimed(database)
    assert claim(database, waiting) is None
    assert claim(database, held.job_id) is None
    assert claim(database, uuid4()) is None


def test_a_silent_workers_job_is_queued_again_and_hinted_once(database: JobsDatabase) -> None:
    held = claimed(database)
    database.queue.sent.clear()
    sweep(database)  # other tests' leases may have run out: what counts is this job
    assert database.row(held.job_id).state == "running", "the lease still runs"
    expire(database, held)
    assert sweep(database, hints_waiting={}) >= 1
    assert database.row(held.job_id).state == "queued"
    assert database.queue.sent.count(held.job_id) == 1
    assert claim(database, held.job_id) == Claim(held.job_id, held.token + 1, 2)


@pytest.mark.parametrize("taken_over", [False, True])
def test_who_lost_the_lease_writes_nothing(database: JobsDatabase, taken_over: bool) -> None:
    old = claimed(database)
    expire(database, old)
    sweep(database)
    if taken_over:
        assert claim(database, old.job_id) is not None
    before = database.row(old.job_id)

    def progress(session: Session) -> None:
        values = {"step": 1}
        metrics = [("loss", 1, 0.5)]
        record_progress(session, old.job_id, old.token, progress=values, metrics=metrics)

    def result(session: Session) -> None:
        succeed(session, old.job_id, old.token, model_of(database, old.job_id))

    def renewal(session: Session) -> None:
        leases.renew(session, old, lease_seconds=30)

    for write in (progress, result, renewal):
        with pytest.raises(LeaseLost), database.sessions.begin() as session:
            write(session)
    with database.sessions.begin() as session:
        assert not fail(session, old.job_id, old.token, code="Late", detail="too late")
        leases.give_back(session, old)
        leases.record_crash(session, old, Death("died"))
        assert job_model_id(session, old.job_id) is None
        count = select(func.count()).where(JobMetric.job_id == old.job_id)
        assert session.scalar(count) == 0
    after = database.row(old.job_id)
    for name in ("state", "attempt", "fencing_token", "progress", "error_code", "worker"):
        assert getattr(after, name) == getattr(before, name)


def test_a_renewed_lease_is_not_taken(database: JobsDatabase) -> None:
    held = claimed(database)
    expire(database, held)
    with database.sessions.begin() as session:
        assert leases.renew(session, held, lease_seconds=30) == "running"
    sweep(database)
    assert database.row(held.job_id).state == "running"


def test_a_sweep_leaves_a_job_that_is_being_ended(database: JobsDatabase) -> None:
    held = claimed(database)
    expire(database, held)
    with database.sessions.begin() as session:
        succeed(session, held.job_id, held.token, model_of(database, held.job_id))
        sweep(database)  # the row is locked: skipped, not waited for
    assert database.row(held.job_id).state == "succeeded"


def test_after_the_last_attempt_the_job_and_what_waits_end_with_words(
    database: JobsDatabase,
) -> None:
    ids = database.chain(3, max_attempts=2)
    for attempt in (1, 2):
        held = claim(database, ids[0])
        assert held is not None
        assert held.attempt == attempt
        expire(database, held)
        assert sweep(database) >= 1  # other tests' leases may have run out, too
    assert database.states(ids) == ["crashed", "failed", "failed"]
    crashed, needs_it, last = (database.row(job_id) for job_id in ids)
    assert crashed.error_code == "ProcessDied"
    assert crashed.error_detail == f"{sweeping.LOST_WORKER.detail} (attempt 2 of 2)"
    assert needs_it.error_code == last.error_code == "NeededJobFailed"
    assert str(ids[0]) in (needs_it.error_detail or "")
    assert str(ids[1]) in (last.error_detail or "")


def test_handing_back_does_not_count_the_attempt(database: JobsDatabase) -> None:
    held = claimed(database, max_attempts=1)
    database.queue.sent.clear()
    with database.sessions.begin() as session:
        leases.give_back(session, held)
    row = database.row(held.job_id)
    assert (row.state, row.attempt) == ("queued", 0)
    assert database.queue.sent == [held.job_id]
    assert claim(database, held.job_id) == Claim(held.job_id, held.token + 1, 1)


def test_a_cancelled_job_of_a_silent_worker_ends_as_cancelled(database: JobsDatabase) -> None:
    first, second = database.chain(2)
    held = claim(database, first)
    assert held is not None
    with database.sessions.begin() as session:
        assert cancel_job(session, database.caller, first).state == "cancelling"
    expire(database, held)
    sweep(database)
    assert database.states([first, second]) == ["cancelled", "failed"]


def test_a_result_after_the_cancel_is_refused(database: JobsDatabase) -> None:
    held = claimed(database)
    with database.sessions.begin() as session:
        cancel_job(session, database.caller, held.job_id)
    with pytest.raises(LeaseLost), database.sessions.begin() as session:
        succeed(session, held.job_id, held.token, model_of(database, held.job_id))
    assert database.row(held.job_id).state == "cancelling"


def test_two_sweeps_at_once_take_each_job_once(database: JobsDatabase) -> None:
    held = [claimed(database) for _ in range(20)]
    for one in held:
        expire(database, one)
    database.queue.sent.clear()
    ready = threading.Barrier(4)
    expired: list[int] = []

    def run() -> None:
        with database.sessions.begin() as session:
            session.connection()
            ready.wait(10)
            expired.append(sweeping.sweep(session, hints_waiting={})[0])

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(expired) == 20
    assert len(expired) == 4, "none of them died of a deadlock"
    assert all(database.queue.sent.count(one.job_id) == 1 for one in held)
