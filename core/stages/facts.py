"""The job as its process sees it: read once, when the attempt begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.datasets.snapshot import snapshot_of_job
from core.db.models import Job


@dataclass(frozen=True, slots=True)
class JobFacts:
    """The job as it was when it was claimed."""

    id: UUID
    project_id: UUID
    stage: str
    plan: dict[str, Any]
    model_id: UUID | None
    needs_id: UUID | None
    snapshot_digest: str
    class_names: list[str]
    dataset_id: UUID | None = None  # of an unfinished job never None
    beginning: int = 0


def load_facts(session: Session, job_id: UUID) -> JobFacts:
    """The facts of a claimed job."""
    job = session.scalars(select(Job).where(Job.id == job_id)).one()
    assert job.snapshot_id is not None  # held by a constraint while the job is unfinished
    snapshot = snapshot_of_job(session, job.snapshot_id)
    given = job.spec.get("model_id")
    return JobFacts(
        id=job.id,
        project_id=job.project_id,
        stage=job.stage,
        plan=job.plan,
        model_id=UUID(given) if given else None,
        needs_id=job.needs_id,
        snapshot_digest=snapshot.digest,
        class_names=snapshot.class_names,
        dataset_id=job.dataset_id,
        beginning=job.beginning,
    )
