"""What a job starts from: models, which may have been deleted since it was ordered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.db.models import Job, Model
from core.jobs.states import JobState

FIELDS = ("model_id", "student_model_id")


def deleted_start(
    session: Session, project_id: UUID, *, spec: Mapping[str, Any], needs_id: UUID | None
) -> str | None:
    """In words the model that such a job would look for in vain; None when all are there.

    Those that are there stay until the transaction ends. A needed job that has not ended well
    has made no model that could be gone.
    """
    for field in FIELDS:
        given = spec.get(field)
        if given and not _held(session, project_id, UUID(str(given)), of_job=False):
            return f"the model {given}, which {field} names, was deleted"
    if needs_id is None:
        return None
    ended_well = select(Job.id).where(Job.id == needs_id, Job.state == JobState.SUCCEEDED)
    if session.scalar(ended_well) and not _held(session, project_id, needs_id, of_job=True):
        return f"the model of job {needs_id}, which this job needs, was deleted"
    return None


def _held(session: Session, project_id: UUID, wanted: UUID, *, of_job: bool) -> bool:
    column = Model.job_id if of_job else Model.id
    statement = select(Model.id).where(column == wanted, Model.project_id == project_id)
    # As in a submission: the model cannot be deleted before the job counts as unfinished.
    return session.scalar(statement.with_for_update(read=True, key_share=True)) is not None
