"""What the processes of jobs said: written by their workers, read in pages, forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from core.db.events import JobLogLine
from core.db.models import Job
from core.errors import LeaseLost
from core.jobs.leases import Claim

FORGOTTEN_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it is kept; `fields` are those of a structured one."""

    at: datetime
    text: str
    level: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)


def write_lines(session: Session, held: Claim, lines: list[Line], *, most: int) -> None:
    """Add lines of an attempt, and keep the newest `most` of the job.

    Raises:
        LeaseLost: Another worker has taken the job since; nothing is written.
    """
    # Shared with nobody who claims: the token stays as it is until this transaction ends. The job
    # itself may have ended, its last lines come after that.
    owned = select(Job.id).where(Job.id == held.job_id, Job.fencing_token == held.token)
    if session.scalar(owned.with_for_update(read=True)) is None:
        raise LeaseLost(f"job {held.job_id} is no longer held with token {held.token}")
    rows = [
        {
            "job_id": held.job_id,
            "attempt": held.attempt,
            "at": line.at,
            "level": line.level,
            "text": line.text,
            "fields": line.fields,
        }
        for line in lines
    ]
    session.execute(insert(JobLogLine), rows)
    too_old = (
        select(JobLogLine.id)
        .where(JobLogLine.job_id == held.job_id)
        .order_by(JobLogLine.id.desc())
        .offset(most)
        .limit(1)
        .scalar_subquery()
    )
    old = delete(JobLogLine).where(JobLogLine.job_id == held.job_id, JobLogLine.id <= too_old)
    session.execute(old)


def read_lines(
    session: Session, job_id: UUID, *, after: int | None, attempt: int | None, limit: int
) -> list[JobLogLine]:
    """Lines behind the id `after`, oldest first; without it the newest."""
    statement = select(JobLogLine).where(JobLogLine.job_id == job_id)
    if attempt is not None:
        statement = statement.where(JobLogLine.attempt == attempt)
    if after is None:
        newest = session.scalars(statement.order_by(JobLogLine.id.desc()).limit(limit))
        return list(newest)[::-1]
    following = statement.where(JobLogLine.id > after).order_by(JobLogLine.id)
    return list(session.scalars(following.limit(limit)))


def forget_lines(session: Session, *, days: float) -> int:
    """Delete old lines; returns how many went."""
    before = datetime.now(UTC) - timedelta(days=days)
    old = select(JobLogLine.id).where(JobLogLine.at < before).limit(FORGOTTEN_AT_ONCE)
    gone = delete(JobLogLine).where(JobLogLine.id.in_(old)).returning(JobLogLine.id)
    return session.scalar(select(func.count()).select_from(gone.cte())) or 0
