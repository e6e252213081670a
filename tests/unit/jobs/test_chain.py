"""Jobs that need jobs: waking, failing, cancelling and retrying a chain, also at the same time."""

from __future__ import annotations

import threading
import time
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete

from core.datasets.service import create_dataset, delete_dataset
from core.db.models import Model
from core.errors import (
    InUse,
    JobAlreadyFinished,
    JobNotFound,
    JobNotRetryable,
    SpecInvalid,
)
from core.jobs import leases, sweeping
from core.jobs.leases import Claim
from core.jobs.service import (
    PlannedJob,
    cancel_job,
    create_jobs,
    fail,
    retry_job,
    succeed,
)
from tests.jobs_database import PLENTY, JobsDatabase, new_snapshot


def run(database: JobsDatabase, job_id: UUID) -> Claim:
    with database.sessions.begin() as session:
        held = leases.claim(session, job_id, worker="w", lease_seconds=30)
    assert held is not None
    return held


def end_well(database: JobsDatabase, job_id: UUID) -> None:
    held = run(database, job_id)
    model = Model(
        id=uuid4(),
        project_id=database.caller.project_id,
        job_id=job_id,
        kind="encoder",
        manifest={},
        manifest_sha256="0" * 64,
    )
    with database.sessions.begin() as session:
        succeed(session, job_id, held.token, model)


def end_badly(database: JobsDatabase, job_id: UUID) -> None:
    held = run(database, job_id)
    with database.sessions.begin() as session:
        assert fail(session, job_id, held.token, code="Diverged", detail="smaller steps")


def cancel(database: JobsDatabase, job_id: UUID) -> str:
    with database.sessions.begin() as session:
        return cancel_job(session, database.caller, job_id).state


def retry(database: JobsDatabase, job_id: UUID) -> str:
    with database.sessions.begin() as session:
        return retry_job(session, database.caller, job_id).state


def test_each_job_wakes_the_next(database: JobsDatabase) -> None:
    ids = database.chain(3)
    assert database.states(ids) == ["queued", "waiting", "waiting"]
    assert database.queue.sent == ids[:1]
    end_well(database, ids[0])
    assert database.states(ids) == ["succeeded", "queued", "waiting"]
    # An end may also hint at what other tests have left in the queue.
    assert [job_id for job_id in database.queue.sent if job_id in ids] == ids[:2]


def test_a_job_that_needs_one_that_ended_well_starts_at_once(database: JobsDatabase) -> None:
    [needed] = database.chain()
    end_well(database, needed)
    assert database.states(database.chain(needs=needed)) == ["queued"]


def test_a_job_that_needs_one_that_failed_is_refused(database: JobsDatabase) -> None:
    [needed] = database.chain()
    end_badly(database, needed)
    with pytest.raises(SpecInvalid, match="retry it first"):
        database.chain(needs=needed)


def test_cancel_where_it_has_not_started(database: JobsDatabase) -> None:
    ids = database.chain(3)
    assert cancel(database, ids[1]) == "cancelled"
    assert database.states(ids) == ["queued", "cancelled", "failed"]
    assert "was cancelled" in (database.row(ids[2]).error_detail or "")
    assert cancel(database, ids[0]) == "cancelled"
    assert cancel(database, ids[0]) == "cancelled", "twice is fine"


def test_cancel_after_the_end_is_refused(database: JobsDatabase) -> None:
    well, badly = database.chain() + database.chain()
    end_well(database, well)
    end_badly(database, badly)
    for job_id in (well, badly):
        with pytest.raises(JobAlreadyFinished):
            cancel(database, job_id)


def test_nobody_else_cancels_or_retries(database: JobsDatabase) -> None:
    [job_id] = database.chain()
    other = type(database.caller)(uuid4(), frozenset({"admin"}))
    for operation in (cancel_job, retry_job):
        with pytest.raises(JobNotFound), database.sessions.begin() as session:
            operation(session, other, job_id)
    assert database.states([job_id]) == ["queued"]


def test_cancel_wins_while_the_job_is_handed_back(database: JobsDatabase) -> None:
    """The state goes from running to queued while the cancel is under way."""
    [job_id] = database.chain()
    held = run(database, job_id)
    said: list[str] = []
    with database.sessions.begin() as session:
        leases.give_back(session, held)
        thread = threading.Thread(target=lambda: said.append(cancel(database, job_id)))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "it waits for the other transaction"
    thread.join(10)
    assert said == ["cancelled"]
    assert database.states([job_id]) == ["cancelled"]


def test_a_retry_wakes_the_chain(database: JobsDatabase) -> None:
    ids = database.chain(3)
    end_badly(database, ids[0])
    assert database.states(ids) == ["failed", "failed", "failed"]
    database.queue.sent.clear()
    assert retry(database, ids[0]) == "queued"
    assert database.states(ids) == ["queued", "waiting", "waiting"]
    assert database.queue.sent == ids[:1]
    row = database.row(ids[0])
    assert (row.attempt, row.error_code, row.error_detail, row.finished_at) == (0, None, None, None)
    for job_id in ids:
        end_well(database, job_id)
    assert database.states(ids) == ["succeeded"] * 3


def test_what_failed_for_its_need_cannot_be_retried_before_it(database: JobsDatabase) -> None:
    first, second = database.chain(2)
    cancel(database, first)
    with pytest.raises(JobNotRetryable, match=f"{first}.* retry that job first"):
        retry(database, second)
    assert database.states([first, second]) == ["cancelled", "failed"]


@pytest.mark.parametrize("state", ["queued", "running", "succeeded"])
def test_what_has_not_ended_badly_cannot_be_retried(database: JobsDatabase, state: str) -> None:
    [job_id] = database.chain()
    if state == "running":
        run(database, job_id)
    if state == "succeeded":
        end_well(database, job_id)
    with pytest.raises(JobNotRetryable, match=f"is {state}"):
        retry(database, job_id)
    assert database.states([job_id]) == [state]


def on_new_dataset(database: JobsDatabase) -> tuple[UUID, UUID]:
    with database.sessions.begin() as session:
        dataset = create_dataset(session, database.caller, name=uuid4().hex)
        snapshot = new_snapshot(session, dataset)
        planned = [PlannedJob("pretrain", {}, {}, None)]
        [job] = create_jobs(session, database.caller, snapshot, planned, max_attempts=3)
        return dataset.id, job.id


def test_a_retry_and_the_deletion_of_its_data_do_not_both_succeed(database: JobsDatabase) -> None:
    dataset_id, job_id = on_new_dataset(database)
    cancel(database, job_id)
    ended: list[type[Exception] | None] = []

    def delete() -> None:
        try:
            with database.sessions.begin() as session:
                delete_dataset(session, database.caller, dataset_id)
        except InUse as error:
            ended.append(type(error))

    with database.sessions.begin() as session:
        retry_job(session, database.caller, job_id)
        thread = threading.Thread(target=delete)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "the deletion waits for the retry"
    thread.join(10)
    assert ended == [InUse]
    assert database.states([job_id]) == ["queued"]


def test_no_retry_without_the_data(database: JobsDatabase) -> None:
    dataset_id, job_id = on_new_dataset(database)
    cancel(database, job_id)
    with database.sessions.begin() as session:
        delete_dataset(session, database.caller, dataset_id)
    with pytest.raises(JobNotRetryable, match="deleted"):
        retry(database, job_id)


def test_nothing_starts_from_the_model_of_a_job_that_was_deleted(database: JobsDatabase) -> None:
    [first] = database.chain()
    end_well(database, first)
    [second] = database.chain(needs=first)
    cancel(database, second)
    with database.sessions.begin() as session:
        session.execute(delete(Model).where(Model.job_id == first))
    with pytest.raises(JobNotRetryable, match=f"the model of job {first}, .* was deleted"):
        retry(database, second)
    with pytest.raises(SpecInvalid, match=f"needs: the model of job {first}, .* was deleted"):
        database.chain(needs=first)


@pytest.mark.parametrize("well", [True, False])
def test_a_job_made_while_its_need_ends_is_not_forgotten(
    database: JobsDatabase, well: bool
) -> None:
    [needed] = database.chain()
    held = run(database, needed)
    made: list[UUID] = []

    def create() -> None:
        try:
            made.extend(database.chain(needs=needed))
        except SpecInvalid:
            return

    thread = threading.Thread(target=create)
    with database.sessions.begin() as session:
        if well:
            model = Model(
                id=uuid4(),
                project_id=database.caller.project_id,
                job_id=needed,
                kind="encoder",
                manifest={},
                manifest_sha256="0" * 64,
            )
            succeed(session, needed, held.token, model)
        else:
            fail(session, needed, held.token, code="Diverged", detail="no")
        session.flush()
        thread.start()
        time.sleep(0.2)
        assert thread.is_alive(), "it waits to see how the needed job ends"
    thread.join(10)
    assert database.states(made) == (["queued"] if well else [])


def test_the_end_of_a_need_waits_for_the_job_being_made(database: JobsDatabase) -> None:
    [needed] = database.chain()
    held = run(database, needed)
    with database.sessions.begin() as session:
        planned = [PlannedJob("pretrain", {}, {}, needed)]
        [job] = create_jobs(session, database.caller, database.snapshot, planned, max_attempts=3)

        def end() -> None:
            with database.sessions.begin() as other:
                fail(other, needed, held.token, code="Diverged", detail="no")

        thread = threading.Thread(target=end)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join(10)
    assert database.states([needed, job.id]) == ["failed", "failed"]


def test_the_sweep_settles_what_was_not_told(database: JobsDatabase) -> None:
    woken, failed = database.chain(2), database.chain(2)
    end = run(database, woken[0])
    database.set(
        end.job_id,
        state="succeeded",
        finished_at=database.row(end.job_id).created_at,
        lease_expires_at=None,
    )
    database.set(failed[0], state="cancelled", finished_at=database.row(failed[0]).created_at)
    with database.sessions.begin() as session:
        sweeping.sweep(session, hints_waiting=PLENTY)
    assert database.states(woken) == ["succeeded", "queued"]
    assert database.states(failed) == ["cancelled", "failed"]
    assert woken[1] in database.queue.sent
