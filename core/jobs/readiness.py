"""Which queued jobs may start now, and in which order."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import aliased

from core.db.models import Job
from core.jobs.states import LEASED, JobState

FIRST_COMES = (Job.priority.desc(), Job.created_at, Job.id)


def is_due() -> ColumnElement[bool]:
    """Queued, and the pause after a crash is over."""
    now = func.clock_timestamp()
    return and_(Job.state == JobState.QUEUED, or_(Job.not_before.is_(None), Job.not_before <= now))


def has_turn(most_running: int) -> ColumnElement[bool]:
    """Due, and the project runs fewer jobs than it may; 0 is no limit."""
    if not most_running:
        return is_due()
    other = aliased(Job)
    full = (
        select(other.project_id)
        .where(other.state.in_(LEASED))
        .group_by(other.project_id)
        .having(func.count() >= most_running)
    )
    return and_(is_due(), Job.project_id.not_in(full))


def running(project_id: UUID) -> Select[int]:
    """How many jobs of the project run; one that is being cancelled still does."""
    return select(func.count()).where(Job.project_id == project_id, Job.state.in_(LEASED))


def startable(most_running: int) -> Select[UUID, str]:
    """Id and device of the jobs that free workers would start now: of a project no more than it
    has room for.
    """
    due = select(Job.id, Job.device).where(is_due())
    if not most_running:
        return due
    place = func.row_number().over(partition_by=Job.project_id, order_by=FIRST_COMES)
    placed = due.add_columns(Job.project_id, place.label("place")).subquery()
    other = aliased(Job)
    busy = (
        select(other.project_id, func.count().label("count"))
        .where(other.state.in_(LEASED))
        .group_by(other.project_id)
        .subquery()
    )
    return (
        select(placed.c.id, placed.c.device)
        .outerjoin(busy, busy.c.project_id == placed.c.project_id)
        .where(placed.c.place + func.coalesce(busy.c.count, 0) <= most_running)
    )
