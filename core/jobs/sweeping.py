"""The sweep: jobs of silent workers, jobs that wait for what has ended, hints that got lost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from core.db.models import Job
from core.jobs import outbox
from core.jobs.chain import settle_waiting
from core.jobs.leases import Death, end_attempt
from core.jobs.readiness import FIRST_COMES, startable
from core.jobs.states import LEASED

HINT_AGE = timedelta(seconds=15)
LOST_WORKER = Death("the worker that ran the job fell silent")


def sweep(
    session: Session, *, hints_waiting: Mapping[str, int], most_running: int = 0
) -> tuple[int, int]:
    """Take jobs from silent workers, wake what waits, re-send lost hints.

    Args:
        session: Where the jobs are.
        hints_waiting: Messages in the broker's queue of each device. While there are as many as
            jobs that could start, none was lost, and a long queue does not fill the broker.
        most_running: Jobs that a project may run at the same time; 0 is no limit.

    Returns:
        The number of expired leases and of hints sent.
    """
    expired = session.scalars(
        select(Job)
        .where(Job.state.in_(LEASED), Job.lease_expires_at < func.clock_timestamp())
        .with_for_update(skip_locked=True)
    ).all()
    for job in expired:
        end_attempt(session, job, LOST_WORKER)
    settle_waiting(session)
    waiting = startable(most_running).subquery()
    counts = select(waiting.c.device, func.count()).group_by(waiting.c.device)
    short = [
        device
        for device, count in session.execute(counts).all()
        if hints_waiting.get(device, 0) < count
    ]
    hints = _unheard(session, short, most_running) if short else []
    for job_id in hints:
        outbox.enqueue(session, job_id)
    return len(expired), len(hints)


def _unheard(session: Session, devices: list[str], most_running: int) -> list[UUID]:
    now = func.clock_timestamp()
    # Two sweeps at once divide the jobs among them; a job that changes right now can wait.
    unheard = (
        select(Job.id)
        .where(
            Job.id.in_(select(startable(most_running).subquery().c.id)),
            Job.device.in_(devices),
            or_(Job.hinted_at.is_(None), Job.hinted_at < now - HINT_AGE),
        )
        .order_by(*FIRST_COMES)
        .with_for_update(skip_locked=True)
    )
    ids = list(session.scalars(unheard))
    session.execute(update(Job).where(Job.id.in_(ids)).values(hinted_at=now))
    return ids
