"""What happened to jobs: read behind a position, and forgotten after a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, delete, func, or_, select, text
from sqlalchemy.orm import Session

from core.db.events import JobEvent
from core.db.models import Job
from core.jobs.states import FINISHED

AT_ONCE = 500  # events of a job in one read
FORGOTTEN_AT_ONCE = 10_000

# One statement for all jobs that are watched: it sees one state of the database, so a job that
# has ended has all of its events here, or as many as fit.
_READ = text(
    """
    SELECT watched.job_id, jobs.state, jobs.attempt, jobs.error_code, jobs.error_detail,
        models.id AS model_id, found.id, found.kind, found.body, found.created_at
    FROM unnest(CAST(:jobs AS uuid[]), CAST(:positions AS bigint[])) AS watched (job_id, position)
    JOIN jobs ON jobs.id = watched.job_id
    LEFT JOIN models ON models.job_id = jobs.id
    LEFT JOIN LATERAL (
        SELECT id, kind, body, created_at FROM job_events
        WHERE job_events.job_id = watched.job_id AND job_events.id > watched.position
        ORDER BY job_events.id LIMIT :most
    ) AS found ON true
    ORDER BY found.id
    """
)


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a job; its id is the position behind which reading goes on."""

    id: int
    kind: str
    body: dict[str, Any]
    at: datetime


@dataclass(slots=True)
class Batch:
    """What is behind a position, oldest first; `end` is the last word on a job that has ended."""

    events: list[Event] = field(default_factory=list)
    end: dict[str, Any] | None = None


def latest_events(session: Session, job_id: UUID) -> list[Event]:
    """The last change of the state, and of the progress if that came after it."""
    last: dict[str, JobEvent] = {}
    for kind in ("state", "progress"):
        newest = (
            select(JobEvent)
            .where(JobEvent.job_id == job_id, JobEvent.kind == kind)
            .order_by(JobEvent.id.desc())
            .limit(1)
        )
        if row := session.scalars(newest).one_or_none():
            last[kind] = row
    if "state" in last and "progress" in last and last["progress"].id < last["state"].id:
        del last["progress"]  # of an attempt before
    return [Event(row.id, row.kind, row.body, row.created_at) for row in last.values()]


def read_events(
    session: Session, positions: Mapping[UUID, int], *, most: int = AT_ONCE
) -> dict[UUID, Batch]:
    """What happened to each job behind its position; a job that is gone is not in the answer."""
    given = {"jobs": list(positions), "positions": list(positions.values()), "most": most}
    batches: dict[UUID, Batch] = {}
    for row in session.execute(_READ, given):
        batch = batches.setdefault(row.job_id, Batch())
        if row.id is not None:
            batch.events.append(Event(row.id, row.kind, row.body, row.created_at))
        if row.state in FINISHED:
            batch.end = _end(row)
    for batch in batches.values():
        if len(batch.events) >= most:
            batch.end = None  # there may be more before it
    return batches


def _end(row: Row[Any]) -> dict[str, Any]:
    error = {"code": row.error_code, "detail": row.error_detail} if row.error_code else None
    model_id = row.model_id and str(row.model_id)
    return {"state": row.state, "attempt": row.attempt, "error": error, "model_id": model_id}


def forget_events(session: Session, *, hours: float) -> int:
    """Delete old progress, and old states of jobs that have ended; returns how many went."""
    before = datetime.now(UTC) - timedelta(hours=hours)
    ended = select(Job.id).where(Job.id == JobEvent.job_id, Job.finished_at < before)
    old = (
        select(JobEvent.id)
        .where(JobEvent.created_at < before, or_(JobEvent.kind == "progress", ended.exists()))
        .limit(FORGOTTEN_AT_ONCE)
    )
    gone = delete(JobEvent).where(JobEvent.id.in_(old)).returning(JobEvent.id)
    counted = session.scalar(select(func.count()).select_from(gone.cte()))
    return counted or 0
