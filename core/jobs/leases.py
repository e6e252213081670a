"""Claims, leases and the sweep: who may work on a job, and what happens when they fall silent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from core.db.models import Job
from core.errors import LeaseLost
from core.jobs import outbox
from core.jobs.chain import fail_dependants, settle_waiting
from core.jobs.states import JobState, move

HINT_AGE = timedelta(seconds=15)
LOST_WORKER = "the worker that ran the job fell silent"


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a job while the lease is renewed."""

    job_id: UUID
    token: int
    attempt: int


def claim(session: Session, job_id: UUID, *, worker: str, lease_seconds: float) -> Claim | None:
    """Take a queued job; None when it is not queued any more (a second hint, a cancel)."""
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.QUEUED, Job.attempt < Job.max_attempts)
        .values(
            state=JobState.RUNNING,
            attempt=Job.attempt + 1,
            fencing_token=Job.fencing_token + 1,
            lease_expires_at=_after(lease_seconds),
            started_at=func.clock_timestamp(),
            worker=worker,
            progress=None,
        )
        .returning(Job.fencing_token, Job.attempt)
    )
    row = session.execute(statement).one_or_none()
    return None if row is None else Claim(job_id, row.fencing_token, row.attempt)


def renew(session: Session, held: Claim, *, lease_seconds: float) -> JobState:
    """Extend the lease and say whether the job is still wanted (`running` or `cancelling`).

    Raises:
        LeaseLost: Another worker holds the job, or it has ended.
    """
    statement = (
        update(Job)
        .where(
            Job.id == held.job_id,
            Job.fencing_token == held.token,
            Job.state.in_([JobState.RUNNING, JobState.CANCELLING]),
        )
        .values(lease_expires_at=_after(lease_seconds))
        .returning(Job.state)
    )
    state = session.scalar(statement)
    if state is None:
        raise LeaseLost(f"job {held.job_id} is no longer held with token {held.token}")
    return JobState(state)


def give_back(session: Session, held: Claim) -> None:
    """Queue the job again without counting the attempt: its worker shuts down in good order."""
    if move(
        session,
        held.job_id,
        JobState.RUNNING,
        JobState.QUEUED,
        token=held.token,
        attempt=Job.attempt - 1,
        hinted_at=None,  # this worker may swallow the hint while it shuts down: send another
    ):
        outbox.enqueue(session, held.job_id)


def record_crash(session: Session, held: Claim, detail: str) -> None:
    """The process died: queue the job again while attempts are left, else end it as crashed."""
    job = session.scalars(
        select(Job)
        .where(
            Job.id == held.job_id,
            Job.fencing_token == held.token,
            Job.state.in_([JobState.RUNNING, JobState.CANCELLING]),
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if job is not None:
        _end_attempt(session, job, detail)


def _end_attempt(session: Session, job: Job, detail: str) -> None:
    if job.state == JobState.CANCELLING:
        if move(session, job.id, JobState.CANCELLING, JobState.CANCELLED):
            fail_dependants(session, job.id, "was cancelled")
        return
    if job.attempt < job.max_attempts:
        # A new hint at once; the next claim raises the token, which fences the old worker off.
        if move(session, job.id, JobState.RUNNING, JobState.QUEUED):
            outbox.hint(session, job.id)
        return
    said = f"{detail} (attempt {job.attempt} of {job.max_attempts})"
    if move(
        session,
        job.id,
        JobState.RUNNING,
        JobState.CRASHED,
        error_code="ProcessDied",
        error_detail=said,
    ):
        fail_dependants(session, job.id, "crashed")


def sweep(session: Session, *, hints_waiting: int) -> tuple[int, int]:
    """Take jobs from silent workers, wake what waits, re-send lost hints.

    Args:
        session: Where the jobs are.
        hints_waiting: Messages in the broker's queue. While there are as many as queued jobs,
            none was lost, and a long queue does not fill the broker.

    Returns:
        The number of expired leases and of hints sent.
    """
    expired = session.scalars(
        select(Job)
        .where(
            Job.state.in_([JobState.RUNNING, JobState.CANCELLING]),
            Job.lease_expires_at < func.clock_timestamp(),
        )
        .with_for_update(skip_locked=True)
    ).all()
    for job in expired:
        _end_attempt(session, job, LOST_WORKER)
    settle_waiting(session)
    hints = _unheard(session) if hints_waiting < _queued(session) else []
    for job_id in hints:
        outbox.enqueue(session, job_id)
    return len(expired), len(hints)


def _queued(session: Session) -> int:
    statement = select(func.count()).select_from(Job).where(Job.state == JobState.QUEUED)
    return session.scalar(statement) or 0


def _unheard(session: Session) -> list[UUID]:
    now = func.clock_timestamp()
    # Two sweeps at once divide the jobs among them; a job that changes right now can wait.
    unheard = (
        select(Job.id)
        .where(
            Job.state == JobState.QUEUED,
            or_(Job.hinted_at.is_(None), Job.hinted_at < now - HINT_AGE),
        )
        .order_by(Job.created_at)
        .with_for_update(skip_locked=True)
    )
    ids = list(session.scalars(unheard))
    session.execute(update(Job).where(Job.id.in_(ids)).values(hinted_at=now))
    return ids


def _after(seconds: float) -> object:
    return func.clock_timestamp() + timedelta(seconds=seconds)
