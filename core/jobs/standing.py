"""Where a job stands: its place in the queue, and how long it will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.db.models import Job
from core.jobs.readiness import FIRST_COMES
from core.jobs.states import JobState

RECENT_PACE, BUDGET = "recent pace", "budget"


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """Seconds of training that are left, and what they were estimated from."""

    seconds: float
    estimated_from: str


def time_left(job: Job) -> TimeLeft | None:
    """How long a running job will still train; None while it cannot be told."""
    seconds = (job.progress or {}).get("seconds_left")
    if job.state != JobState.RUNNING or seconds is None:
        return None
    by_budget = job.plan.get("budget_minutes") is not None and job.plan.get("steps") is None
    return TimeLeft(float(seconds), BUDGET if by_budget else RECENT_PACE)


def queue_positions(session: Session, job_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The place of each queued job among all that are queued for its device, from 1 on."""
    if not job_ids:
        return {}
    place = func.row_number().over(partition_by=Job.device, order_by=FIRST_COMES)
    queue = select(Job.id, place.label("place")).where(Job.state == JobState.QUEUED).subquery()
    wanted = select(queue.c.id, queue.c.place).where(queue.c.id.in_(job_ids))
    return {row.id: row.place for row in session.execute(wanted)}
