"""What jobs without a model of their own end with: a report on the model that they looked at."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.db.models import Model
from core.db.vectors import Report
from core.errors import LeaseLost
from core.jobs import outbox
from core.jobs.chain import wake_dependants
from core.jobs.states import JobState, move

REPORTING = ("embed", "evaluate")
MOST_LISTED = 100


def succeed_with_report(session: Session, job_id: UUID, token: int, report: Report) -> None:
    """End the job well together with its report: both or neither.

    Raises:
        LeaseLost: The job is not held with this token any more, or is being cancelled.
    """
    if not move(session, job_id, JobState.RUNNING, JobState.SUCCEEDED, token=token):
        raise LeaseLost(f"job {job_id} is no longer held with token {token}")
    session.add(report)
    wake_dependants(session, job_id)
    outbox.hint_next(session, job_id)


def report_of_job(session: Session, job_id: UUID, stage: str) -> dict[str, Any] | None:
    """What the job found out; None while it runs, and of the stages that make a model."""
    if stage not in REPORTING:
        return None
    return session.scalar(select(Report.body).where(Report.job_id == job_id))


def list_reports(session: Session, model: Model, *, stage: str | None) -> list[Report]:
    """The newest reports on a model that the caller holds, newest first."""
    statement = select(Report).where(Report.model_id == model.id)
    if stage is not None:
        statement = statement.where(Report.stage == stage)
    newest = statement.order_by(Report.created_at.desc(), Report.job_id).limit(MOST_LISTED)
    return list(session.scalars(newest))
