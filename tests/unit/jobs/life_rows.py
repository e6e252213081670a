"""The rows behind the model of the life of jobs: what workers write, and what must be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.auth import Caller, ensure_project
from core.datasets.service import create_dataset
from core.db.events import JobEvent
from core.db.models import Job, Model, Snapshot
from core.db.scheduling import JobCheckpoint
from core.errors import LeaseLost
from core.jobs import checkpoints, leases, service
from core.jobs.chain import NEED_FAILED
from core.jobs.leases import Claim, Death
from core.jobs.states import FINISHED, LEASED, RETRYABLE, JobState
from tests.jobs_database import new_snapshot


def new_source(session: Session, project: str) -> tuple[Caller, Snapshot]:
    """Who asks for jobs in the project, and what on."""
    caller = Caller(ensure_project(session, project), frozenset({"admin"}))
    dataset = create_dataset(session, caller, name=uuid4().hex)
    return caller, new_snapshot(session, dataset)


def end_job(session: Session, owner: Caller, held: Claim, how: str) -> bool:
    """Whether the end was taken, where that is told."""
    if how == "succeed":
        try:
            service.succeed(session, held.job_id, held.token, model_of(owner, held.job_id))
        except LeaseLost:
            return False
        return True
    if how == "fail":
        return service.fail(session, held.job_id, held.token, code="Test", detail="failed")
    if how in {"crash", "oom"}:
        pause = 10 if how == "crash" and held.token % 2 else 0
        death = Death("died", final=how == "oom")
        leases.record_crash(session, held, death, pause_seconds=pause)
    else:
        leases.give_back(session, held, pause_seconds=10 if how == "away" else 0)
    return True


def model_of(owner: Caller, job_id: UUID) -> Model:
    return Model(
        id=uuid4(),
        project_id=owner.project_id,
        job_id=job_id,
        kind="encoder",
        manifest={},
        manifest_sha256="0" * 64,
    )


def report_progress(session: Session, held: Claim, step: int) -> None:
    told: dict[str, Any] = {"step": step}
    metrics = [("loss", step, float(held.token))]
    service.record_progress(session, held.job_id, held.token, progress=told, metrics=metrics)


def record_checkpoint(session: Session, held: Claim, step: int) -> None:
    digest = uuid4().hex * 2
    checkpoints.record(session, held, folder="run", step=step, digest=digest, size=1)


def failed_for_want_of(session: Session, job_id: UUID) -> list[UUID]:
    """The jobs that a retry of this one wakes."""
    waiting = select(Job.id).where(Job.needs_id == job_id, Job.error_code == NEED_FAILED)
    found = list(session.scalars(waiting))
    return found + [far for near in found for far in failed_for_want_of(session, near)]


def facts_of(session: Session, job_id: UUID) -> tuple[object, ...]:
    """What a late writer must not change."""
    row = row_of(session, job_id)
    kept = select(JobCheckpoint.token, JobCheckpoint.step).where(JobCheckpoint.job_id == job_id)
    saved = tuple(session.execute(kept).all())
    return row.state, row.attempt, row.fencing_token, row.error_code, saved


def row_of(session: Session, job_id: UUID) -> Job:
    return session.scalars(select(Job).where(Job.id == job_id)).one()


def life_of(session: Session, job_id: UUID) -> list[JobState]:
    """All states that the job has had, as the events tell."""
    told = select(JobEvent.body["state"].astext)
    told = told.where(JobEvent.job_id == job_id, JobEvent.kind == "state").order_by(JobEvent.id)
    return [JobState(state) for state in session.scalars(told)]


def check_rows(session: Session, holder: Mapping[UUID, Claim]) -> list[Job]:
    """What holds of all jobs at any time, whoever holds which; the rows."""
    rows = {row.id: row for row in session.scalars(select(Job))}
    made = Counter(session.scalars(select(Model.job_id)))
    for job_id, row in rows.items():
        assert made[job_id] == (row.state == "succeeded"), "one job, one model"
        assert (row.state in LEASED) == (job_id in holder)
        if job_id in holder:
            assert row.fencing_token == holder[job_id].token
        need = rows[row.needs_id].state if row.needs_id else None
        if row.state == "waiting":
            assert need not in FINISHED, "somebody forgot to tell it"
        if row.state in {"queued", *LEASED, "succeeded"}:
            assert need in {None, "succeeded"}
        if row.error_code == NEED_FAILED:
            assert need in RETRYABLE
    return list(rows.values())


def unfinished(session: Session) -> list[UUID]:
    return list(session.scalars(select(Job.id).where(Job.state.not_in(FINISHED))))
