"""Claims and leases: who may work on a job, and what becomes of it when they stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from core.db.models import Job
from core.errors import LeaseLost
from core.jobs import outbox
from core.jobs.chain import fail_dependants
from core.jobs.readiness import FIRST_COMES, has_turn, is_due, running
from core.jobs.states import LEASED, JobState, move

LONGEST_PAUSE_SECONDS = 600.0
AWAY = {
    "phase": "waiting",
    "message": "the database or the blob store did not answer; the job goes on when it does",
}


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a job while the lease is renewed."""

    job_id: UUID
    token: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Death:
    """Why the process of a job is gone without a result.

    Attributes:
        detail: In words for the job's owner.
        code: The error code of a job that is not tried again.
        final: Another attempt would end the same way.
    """

    detail: str
    code: str = "ProcessDied"
    final: bool = False


def claim(session: Session, job_id: UUID, *, worker: str, lease_seconds: float) -> Claim | None:
    """Take a queued job; None when it is not queued any more (a second hint, a cancel)."""
    statement = (
        update(Job)
        .where(Job.id == job_id, is_due(), Job.attempt < Job.max_attempts)
        .values(
            state=JobState.RUNNING,
            attempt=Job.attempt + 1,
            fencing_token=Job.fencing_token + 1,
            lease_expires_at=_after(lease_seconds),
            started_at=func.clock_timestamp(),
            worker=worker,
            progress=None,
            not_before=None,
        )
        .returning(Job.fencing_token, Job.attempt)
    )
    row = session.execute(statement).one_or_none()
    return None if row is None else Claim(job_id, row.fencing_token, row.attempt)


def claim_next(
    session: Session,
    hinted: UUID,
    *,
    devices: Sequence[str],
    worker: str,
    lease_seconds: float,
    most_running: int = 0,
) -> Claim | None:
    """Take the job whose turn it is, which need not be the one that the hint names.

    There is a hint for each queued job, so that each is taken by somebody.

    Args:
        session: A transaction, in which nothing else is locked.
        hinted: The job of the hint: one for the same device is taken.
        devices: What the worker can do.
        worker: Its name.
        lease_seconds: How long it may be silent.
        most_running: Jobs that a project may run at the same time; 0 is no limit.

    Returns:
        None when there is nothing to do for this worker now.
    """
    device = session.scalar(select(Job.device).where(Job.id == hinted))
    wanted = [one for one in devices if device in (None, one)]
    while found := session.execute(
        select(Job.id, Job.project_id)
        .where(Job.device.in_(wanted), has_turn(most_running))
        .order_by(*FIRST_COMES)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none():
        # Without its turn here, two workers would each see room for one more job.
        if most_running and not _project_has_room(session, found.project_id, most_running):
            continue
        return claim(session, found.id, worker=worker, lease_seconds=lease_seconds)
    # The hint is used up: let the job be hinted at again when its turn comes. One that another
    # claim holds is left alone: that claim may wait for our turn in the project to be over.
    still = select(Job.id).where(Job.id == hinted, Job.state == JobState.QUEUED)
    free = still.with_for_update(skip_locked=True).scalar_subquery()
    session.execute(update(Job).where(Job.id == free).values(hinted_at=None))
    return None


def _project_has_room(session: Session, project_id: UUID, most: int) -> bool:
    # Only claims take this lock, each with one queued row locked before that no other claim
    # waits for, so no two wait for each other.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(str(project_id), 0))))
    return (session.scalar(running(project_id)) or 0) < most


def renew(session: Session, held: Claim, *, lease_seconds: float) -> JobState:
    """Extend the lease and say whether the job is still wanted (`running` or `cancelling`).

    Raises:
        LeaseLost: Another worker holds the job, or it has ended.
    """
    statement = (
        update(Job)
        .where(Job.id == held.job_id, Job.fencing_token == held.token, Job.state.in_(LEASED))
        .values(lease_expires_at=_after(lease_seconds))
        .returning(Job.state)
    )
    state = session.scalar(statement)
    if state is None:
        raise LeaseLost(f"job {held.job_id} is no longer held with token {held.token}")
    return JobState(state)


def give_back(session: Session, held: Claim, *, pause_seconds: float = 0) -> None:
    """Queue the job again without counting the attempt: it is not the job's fault.

    With a pause where a server does not answer, so that going on at once would be of no use.
    """
    if move(
        session,
        held.job_id,
        JobState.RUNNING,
        JobState.QUEUED,
        token=held.token,
        attempt=Job.attempt - 1,
        not_before=_after(pause_seconds) if pause_seconds else None,
        progress=AWAY if pause_seconds else Job.progress,
        hinted_at=None,  # this worker may swallow the hint while it shuts down: send another
    ):
        if not pause_seconds:
            outbox.enqueue(session, held.job_id)
        outbox.hint_next(session, held.job_id)


def record_crash(session: Session, held: Claim, death: Death, *, pause_seconds: float = 0) -> None:
    """The process died: queue the job again while attempts are left, else end it as crashed.

    Args:
        session: A transaction.
        held: The attempt.
        death: What is known of it.
        pause_seconds: After the first attempt; doubled with each one more.
    """
    job = session.scalars(
        select(Job)
        .where(Job.id == held.job_id, Job.fencing_token == held.token, Job.state.in_(LEASED))
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if job is not None:
        end_attempt(session, job, death, pause_seconds=pause_seconds)


def end_attempt(session: Session, job: Job, death: Death, *, pause_seconds: float = 0) -> None:
    """What becomes of a leased job, whose row is locked, when nobody works on it any more."""
    if job.state == JobState.CANCELLING:
        if move(session, job.id, JobState.CANCELLING, JobState.CANCELLED):
            fail_dependants(session, job.id, "was cancelled")
    elif job.attempt < job.max_attempts and not death.final:
        _queue_again(session, job, pause_seconds * 2 ** (job.attempt - 1))
    else:
        said = f"{death.detail} (attempt {job.attempt} of {job.max_attempts})"
        reason: dict[str, Any] = {"error_code": death.code, "error_detail": said}
        if move(session, job.id, JobState.RUNNING, JobState.CRASHED, **reason):
            fail_dependants(session, job.id, "crashed")
    outbox.hint_next(session, job.id)


def _queue_again(session: Session, job: Job, pause_seconds: float) -> None:
    pause = min(pause_seconds, LONGEST_PAUSE_SECONDS)
    # The next claim raises the token, which fences the old worker off.
    if not pause:
        if move(session, job.id, JobState.RUNNING, JobState.QUEUED):
            outbox.hint(session, job.id)
        return
    later: dict[str, Any] = {
        "not_before": _after(pause),
        "hinted_at": None,
    }  # the sweep hints at it
    move(session, job.id, JobState.RUNNING, JobState.QUEUED, **later)


def _after(seconds: float) -> object:
    return func.clock_timestamp() + timedelta(seconds=seconds)
