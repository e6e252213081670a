"""The life of a job: its states and the one statement that changes them."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from sqlalchemy import ColumnElement, func, update
from sqlalchemy.orm import Session

from core.db.models import Job
from core.errors import IllegalTransition


class JobState(StrEnum):
    """Where a job stands."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CRASHED = "crashed"
    CANCELLED = "cancelled"


_S = JobState
ALLOWED: dict[JobState, frozenset[JobState]] = {
    _S.WAITING: frozenset({_S.QUEUED, _S.FAILED, _S.CANCELLED}),
    _S.QUEUED: frozenset({_S.RUNNING, _S.CANCELLED}),
    _S.RUNNING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.CRASHED, _S.CANCELLING, _S.QUEUED}),
    _S.CANCELLING: frozenset({_S.CANCELLED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset({_S.QUEUED, _S.WAITING}),
    _S.CRASHED: frozenset({_S.QUEUED, _S.WAITING}),
    _S.CANCELLED: frozenset({_S.QUEUED, _S.WAITING}),
}
FINISHED = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CRASHED, _S.CANCELLED})
RETRYABLE = FINISHED - {_S.SUCCEEDED}
LEASED = frozenset({_S.RUNNING, _S.CANCELLING})


def move(
    session: Session,
    job_id: UUID,
    source: JobState,
    target: JobState,
    *,
    token: int | None = None,
    **values: object,
) -> bool:
    """Change the state if it still is `source` (and the fencing token still `token`).

    False means that somebody else was first: the caller leaves quietly.

    Raises:
        IllegalTransition: A job's life has no such step.
    """
    if target not in ALLOWED[source]:
        raise IllegalTransition(f"a job does not go from {source} to {target}")
    where: list[ColumnElement[bool]] = [Job.id == job_id, Job.state == source]
    if token is not None:
        where.append(Job.fencing_token == token)
    if target not in LEASED:
        values |= {"lease_expires_at": None, "worker": None}
    if target in FINISHED:
        values |= {"finished_at": func.clock_timestamp()}
    statement = update(Job).where(*where).values(state=target, **values).returning(Job.id)
    return session.scalar(statement) is not None
