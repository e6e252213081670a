"""Jobs that need other jobs: what a job's end does to those that wait for it.

Rows are locked from a needed job to those that need it, never the other way round, so that two
transactions on one chain cannot wait for each other.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.db.models import Dataset, Job
from core.jobs import outbox
from core.jobs.states import RETRYABLE, JobState, move

NEED_FAILED = "NeededJobFailed"


def first_state(session: Session, needs_id: UUID | None) -> JobState | None:
    """Where a job starts: queued, or waiting for the one it needs; None when that one has failed.

    The needed job is locked, which orders this read against its end, which wakes what waits.
    """
    if needs_id is None:
        return JobState.QUEUED
    state = session.scalar(select(Job.state).where(Job.id == needs_id).with_for_update(read=True))
    if state == JobState.SUCCEEDED:
        return JobState.QUEUED
    return None if state in RETRYABLE else JobState.WAITING


def wake_dependants(session: Session, job_id: UUID) -> None:
    """Queue the jobs that waited for this one."""
    for dependant in _waiting_for(session, job_id):
        if move(session, dependant, JobState.WAITING, JobState.QUEUED):
            outbox.hint(session, dependant)


def fail_dependants(session: Session, job_id: UUID, what: str) -> None:
    """End the jobs that waited for this one, and those that waited for them."""
    detail = f"job {job_id}, which this job needs, {what}; retry that job to run both"
    reason: dict[str, Any] = {"error_code": NEED_FAILED, "error_detail": detail}
    for dependant in _waiting_for(session, job_id):
        if move(session, dependant, JobState.WAITING, JobState.FAILED, **reason):
            fail_dependants(session, dependant, "failed")


def retry_dependants(session: Session, job_id: UUID) -> None:
    """Let the jobs wait again that failed for want of this one, and whose data is still there."""
    failed = (
        select(Job.id)
        .join(Dataset, Dataset.id == Job.dataset_id)
        .where(
            Job.needs_id == job_id,
            Job.state == JobState.FAILED,
            Job.error_code == NEED_FAILED,
            Job.snapshot_id.is_not(None),
        )
        # A dataset is not deleted while this makes one of its jobs unfinished again.
        .with_for_update(read=True, key_share=True, of=Dataset)
    )
    for dependant in session.scalars(failed).all():
        if move(
            session,
            dependant,
            JobState.FAILED,
            JobState.WAITING,
            error_code=None,
            error_detail=None,
            finished_at=None,
            attempt=0,
        ):
            retry_dependants(session, dependant)


def settle_waiting(session: Session) -> None:
    """Tell the jobs whose need has ended without telling them."""
    waiting = select(Job.needs_id).where(Job.state == JobState.WAITING).distinct()
    ended = select(Job.id).where(
        Job.id.in_(waiting), Job.state.in_([JobState.SUCCEEDED, *sorted(RETRYABLE)])
    )
    # Locked, so that a needed job that is being retried is not taken for a failed one.
    held = session.execute(
        ended.add_columns(Job.state).with_for_update(read=True, skip_locked=True)
    ).all()
    for need_id, state in held:
        if state == JobState.SUCCEEDED:
            wake_dependants(session, need_id)
        else:
            fail_dependants(session, need_id, f"ended as {state}")


def _waiting_for(session: Session, job_id: UUID) -> list[UUID]:
    waiting = select(Job.id).where(Job.needs_id == job_id, Job.state == JobState.WAITING)
    return list(session.scalars(waiting.order_by(Job.id)))
