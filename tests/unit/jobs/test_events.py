"""Each change of a job is an event; reading goes on behind a position; old ones are forgotten."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import update

from core.db.events import JobEvent
from core.jobs import leases
from core.jobs.events import Batch, forget_events, latest_events, read_events
from core.jobs.service import cancel_job, fail, record_progress
from tests.jobs_database import JobsDatabase


def read(database: JobsDatabase, job_id: UUID, position: int = 0, most: int = 100) -> Batch:
    with database.sessions.begin() as session:
        return read_events(session, {job_id: position}, most=most)[job_id]


def run(database: JobsDatabase, *, steps: int) -> UUID:
    [job_id] = database.chain()
    with database.sessions.begin() as session:
        held = leases.claim(session, job_id, worker="w", lease_seconds=30)
    assert held is not None
    for step in range(steps):
        with database.sessions.begin() as session:
            record_progress(session, job_id, held.token, progress={"step": step}, metrics=[])
    with database.sessions.begin() as session:
        assert fail(session, job_id, held.token, code="SpecInvalid", detail="because")
    return job_id


def age(database: JobsDatabase, hours: float) -> None:
    with database.sessions.begin() as session:
        then = datetime.now(UTC) - timedelta(hours=hours)
        session.execute(update(JobEvent).values(created_at=then))


def test_every_change_is_an_event_and_the_end_comes_with_the_last(database: JobsDatabase) -> None:
    job_id = run(database, steps=2)
    batch = read(database, job_id)
    told = [event.body.get("state", event.body.get("step")) for event in batch.events]
    assert told == ["queued", "running", 0, 1, "failed"]
    error = {"code": "SpecInvalid", "detail": "because"}
    assert batch.events[-1].body["error"] == error
    assert batch.end == {"state": "failed", "attempt": 1, "error": error, "model_id": None}


def test_reading_in_pieces_gives_the_same_and_no_end_before_the_last(
    database: JobsDatabase,
) -> None:
    job_id = run(database, steps=5)
    whole = read(database, job_id)
    pieces, position = [], 0
    while True:
        batch = read(database, job_id, position, most=2)
        pieces += batch.events
        if batch.end is not None:
            break
        position = batch.events[-1].id
    assert pieces == whole.events


def test_many_jobs_are_read_at_once_each_behind_its_position(database: JobsDatabase) -> None:
    first, second, gone = run(database, steps=1), database.chain()[0], uuid4()
    behind = read(database, first).events[1].id
    with database.sessions.begin() as session:
        found = read_events(session, {first: behind, second: 0, gone: 0})
    assert set(found) == {first, second}
    assert [event.kind for event in found[first].events] == ["progress", "state"]
    assert [event.body["state"] for event in found[second].events] == ["queued"]
    assert found[second].end is None


def test_the_latest_are_the_state_and_the_progress_since(database: JobsDatabase) -> None:
    [job_id] = database.chain()
    with database.sessions.begin() as session:
        held = leases.claim(session, job_id, worker="w", lease_seconds=30)
    assert held is not None
    with database.sessions.begin() as session:
        record_progress(session, job_id, held.token, progress={"step": 7}, metrics=[])
        assert [event.kind for event in latest_events(session, job_id)] == ["state", "progress"]
    with database.sessions.begin() as session:
        cancel_job(session, database.caller, job_id)
        [last] = latest_events(session, job_id)
        assert last.body["state"] == "cancelling"


def test_old_progress_goes_and_states_when_the_job_has_ended_long_ago(
    database: JobsDatabase,
) -> None:
    ended, waiting = run(database, steps=3), database.chain()[0]
    age(database, 3)
    with database.sessions.begin() as session:
        assert forget_events(session, hours=4) == 0
        assert forget_events(session, hours=2) >= 3
    assert [event.kind for event in read(database, ended).events] == ["state"] * 3
    database.set(ended, finished_at=datetime.now(UTC) - timedelta(hours=3))
    with database.sessions.begin() as session:
        forget_events(session, hours=2)
    after = read(database, ended)
    assert after.events == []
    assert after.end is not None  # the job's row still knows
    assert len(read(database, waiting).events) == 1
