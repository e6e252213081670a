"""Whose turn it is: priority, device, the limit of running jobs, the pause after a crash."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from core.auth import Caller, ensure_project
from core.datasets.service import create_dataset
from core.jobs import leases, outbox, sweeping
from core.jobs.leases import Claim, Death
from core.jobs.service import PlannedJob, cancel_job, create_jobs, fail
from core.jobs.standing import queue_positions
from tests.jobs_database import PLENTY, JobsDatabase, jobs_database, new_snapshot

MEMORY = Death("too little memory", code="OutOfMemory", final=True)


@pytest.fixture
def database(postgres_url: str) -> Iterator[JobsDatabase]:
    """Of its own: a claim looks at every job there is."""
    with jobs_database(postgres_url) as database:
        yield database


def take(
    database: JobsDatabase, hinted: UUID, *devices: str, most_running: int = 0
) -> Claim | None:
    with database.sessions.begin() as session:
        return leases.claim_next(
            session,
            hinted,
            devices=devices or ("cpu",),
            worker="w",
            lease_seconds=30,
            most_running=most_running,
        )


def taken(database: JobsDatabase, hinted: UUID, *devices: str, most_running: int = 0) -> UUID:
    held = take(database, hinted, *devices, most_running=most_running)
    assert held is not None
    return held.job_id


def sweep(database: JobsDatabase, *, most_running: int = 0, **waiting: int) -> int:
    with database.sessions.begin() as session:
        return sweeping.sweep(session, hints_waiting=waiting, most_running=most_running)[1]


def crash(database: JobsDatabase, held: Claim, death: Death, pause_seconds: float = 0) -> None:
    with database.sessions.begin() as session:
        leases.record_crash(session, held, death, pause_seconds=pause_seconds)


def pause_of(database: JobsDatabase, job_id: UUID) -> float:
    row = database.row(job_id)
    assert row.not_before is not None
    return (row.not_before - datetime.now(UTC)).total_seconds()


def pause_over(database: JobsDatabase, job_id: UUID) -> None:
    database.set(job_id, not_before=datetime.now(UTC) - timedelta(seconds=1))


def job_elsewhere(database: JobsDatabase) -> UUID:
    """A job of another project."""
    with database.sessions.begin() as session:
        caller = Caller(ensure_project(session, "elsewhere"), frozenset({"admin"}))
        dataset = create_dataset(session, caller, name="images")
        snapshot = new_snapshot(session, dataset)
        planned = [PlannedJob("pretrain", {}, {}, None)]
        return create_jobs(session, caller, snapshot, planned, max_attempts=1)[0].id


def test_a_hint_takes_the_job_of_the_highest_priority_then_the_oldest(
    database: JobsDatabase,
) -> None:
    low, first, second, high = (database.chain()[0] for _ in range(4))
    database.set(low, priority=-5)
    database.set(high, priority=7)
    with database.sessions.begin() as session:
        places = queue_positions(session, [low, first, second, high])
    assert places == {high: 1, first: 2, second: 3, low: 4}
    order = [taken(database, hinted) for hinted in (low, low, high, first)]
    assert order == [high, first, second, low], "whatever the hints name, the turn decides"
    assert take(database, low) is None


def test_a_worker_takes_only_what_its_device_can_do(database: JobsDatabase) -> None:
    cpu, gpu, other = (database.chain()[0] for _ in range(3))
    for job_id in (gpu, other):
        database.set(job_id, device="gpu")
    assert take(database, gpu, "cpu") is None, "a hint that went astray"
    with database.sessions.begin() as session:
        assert queue_positions(session, [cpu, gpu, other]) == {cpu: 1, gpu: 1, other: 2}
    assert taken(database, other, "gpu", "cpu") == gpu, "of the device of the hint, the oldest"
    assert taken(database, cpu, "gpu", "cpu") == cpu
    assert take(database, cpu, "cpu") is None
    database.queue.sent.clear()
    database.set(other, hinted_at=None)
    assert sweep(database, cpu=5, gpu=0) == 1
    assert database.queue.devices[other] == "gpu"


def test_a_project_runs_no_more_than_it_may_and_holds_up_nobody(database: JobsDatabase) -> None:
    first, second, third = (database.chain()[0] for _ in range(3))
    elsewhere = job_elsewhere(database)
    running = take(database, first, most_running=1)
    assert running is not None
    assert running.job_id == first
    assert taken(database, second, most_running=1) == elsewhere, "its project has room"
    assert take(database, third, most_running=1) is None

    database.queue.sent.clear()
    assert sweep(database, most_running=1) == 0, "what may not start needs no hint"
    with database.sessions.begin() as session:
        assert fail(session, first, running.token, code="Test", detail="ended")
    assert database.queue.sent == [third], "whose hint had been used up in vain"
    assert taken(database, third, most_running=1) == second


def test_the_sweep_hints_at_as_many_as_have_room(database: JobsDatabase) -> None:
    jobs = [database.chain()[0] for _ in range(4)]
    for job_id in jobs:
        database.set(job_id, hinted_at=None)
    database.set(jobs[3], priority=1)
    database.queue.sent.clear()
    assert sweep(database, most_running=2) == 2
    assert database.queue.sent == [jobs[3], jobs[0]]
    assert sweep(database, most_running=2, **PLENTY) == 0


def test_workers_at_the_same_moment_do_not_pass_the_limit(database: JobsDatabase) -> None:
    jobs = [database.chain()[0] for _ in range(8)]
    ready = threading.Barrier(8)
    got: list[Claim | None] = []

    def work(hinted: UUID) -> None:
        ready.wait(10)
        got.append(take(database, hinted, most_running=3))

    threads = [threading.Thread(target=work, args=(job_id,)) for job_id in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    claimed = [held.job_id for held in got if held]
    assert len(set(claimed)) == len(claimed) == 3


def test_a_cancelling_job_still_counts(database: JobsDatabase) -> None:
    first, second = database.chain()[0], database.chain()[0]
    held = take(database, first)
    assert held is not None
    with database.sessions.begin() as session:
        cancel_job(session, database.caller, first)
    assert take(database, second, most_running=1) is None
    database.queue.sent.clear()
    crash(database, held, Death("gone"))
    assert database.row(first).state == "cancelled"
    assert database.queue.sent == [second]


def test_after_a_crash_a_job_pauses_twice_as_long_each_time(database: JobsDatabase) -> None:
    [job_id] = database.chain(max_attempts=3)
    for expected in (10, 20):
        held = take(database, job_id)
        assert held is not None
        assert database.row(job_id).not_before is None
        database.queue.sent.clear()
        crash(database, held, Death("died"), pause_seconds=10)
        assert expected - 5 < pause_of(database, job_id) <= expected
        assert take(database, job_id) is None
        with database.sessions.begin() as session:
            assert leases.claim(session, job_id, worker="w", lease_seconds=30) is None
        assert sweep(database) == 0
        assert database.queue.sent == []
        pause_over(database, job_id)
        assert sweep(database) == 1
        assert database.queue.sent == [job_id]
    held = take(database, job_id)
    assert held is not None
    crash(database, held, Death("died"), pause_seconds=10)
    row = database.row(job_id)
    assert (row.state, row.error_detail) == ("crashed", "died (attempt 3 of 3)")


def test_a_pause_has_an_end(database: JobsDatabase) -> None:
    [job_id] = database.chain(max_attempts=30)
    database.set(job_id, attempt=20)
    held = take(database, job_id)
    assert held is not None
    crash(database, held, Death("died"), pause_seconds=60)
    assert pause_of(database, job_id) <= leases.LONGEST_PAUSE_SECONDS


def test_what_would_end_the_same_way_is_not_tried_again(database: JobsDatabase) -> None:
    first, second = database.chain(2, max_attempts=3)
    held = take(database, first)
    assert held is not None
    crash(database, held, MEMORY)
    row = database.row(first)
    assert (row.state, row.error_code) == ("crashed", "OutOfMemory")
    assert row.error_detail == "too little memory (attempt 1 of 3)"
    assert database.row(second).state == "failed"


def test_a_job_that_waits_for_a_server_uses_up_no_attempt(database: JobsDatabase) -> None:
    [job_id] = database.chain(max_attempts=1)
    for _ in range(3):
        held = take(database, job_id)
        assert held is not None
        assert held.attempt == 1
        with database.sessions.begin() as session:
            leases.give_back(session, held, pause_seconds=10)
        row = database.row(job_id)
        assert (row.state, row.attempt) == ("queued", 0)
        assert "did not answer" in (row.progress or {})["message"]
        assert take(database, job_id) is None
        pause_over(database, job_id)


def test_a_hint_inside_a_savepoint_is_refused(database: JobsDatabase) -> None:
    [job_id] = database.chain()
    with database.sessions.begin() as session, session.begin_nested():  # noqa: SIM117
        with pytest.raises(RuntimeError, match="savepoint"):
            outbox.hint(session, job_id)
