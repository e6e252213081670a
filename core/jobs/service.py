"""Jobs: create, find, cancel, retry, finish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.auth import Caller
from core.datasets.service import get_dataset
from core.db.models import Job, JobMetric, Model, Snapshot
from core.db.paging import Page, fetch_page
from core.errors import JobAlreadyFinished, JobNotFound, JobNotRetryable, LeaseLost
from core.jobs import outbox
from core.jobs.states import FINISHED, RETRYABLE, JobState, move


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A job about to be made: what was asked, what was resolved, what it waits for."""

    stage: str
    spec: dict[str, Any]
    plan: dict[str, Any]
    needs_id: UUID | None


def create_jobs(
    session: Session,
    caller: Caller,
    snapshot: Snapshot,
    planned: list[PlannedJob],
    *,
    max_attempts: int,
) -> list[Job]:
    """Record a chain of jobs, each of which needs the one before, and hint at what can start.

    Raises:
        DatasetNotFound: The snapshot's dataset is gone or another project's.
    """
    get_dataset(session, caller, snapshot.dataset_id, lock=True)
    pipeline_id = uuid4() if len(planned) > 1 else None
    jobs: list[Job] = []
    for item in planned:
        needs_id = item.needs_id or (jobs[-1].id if jobs else None)
        job = Job(
            id=uuid4(),
            project_id=caller.project_id,
            dataset_id=snapshot.dataset_id,
            snapshot_id=snapshot.id,
            pipeline_id=pipeline_id,
            needs_id=needs_id,
            stage=item.stage,
            state=_first_state(session, needs_id),
            spec=item.spec,
            plan=item.plan,
            max_attempts=max_attempts,
        )
        session.add(job)
        session.flush()
        jobs.append(job)
        if job.state == JobState.QUEUED:
            _hint(session, job.id)
    return jobs


def get_job(session: Session, caller: Caller, job_id: UUID) -> Job:
    """The caller's job.

    Raises:
        JobNotFound: There is none, or it is another project's.
    """
    statement = select(Job).where(Job.id == job_id, Job.project_id == caller.project_id)
    job = session.scalars(statement.execution_options(populate_existing=True)).one_or_none()
    if job is None:
        raise JobNotFound(f"job_id: no job has the id {job_id}")
    return job


def list_jobs(
    session: Session,
    caller: Caller,
    *,
    filters: Mapping[str, object],
    cursor: str | None,
    limit: int,
) -> Page[Job]:
    """The caller's jobs, newest first; filters with the value None are not applied."""
    given = {name: value for name, value in filters.items() if value is not None}
    statement = select(Job).where(Job.project_id == caller.project_id).filter_by(**given)
    return fetch_page(session, statement, Job, cursor=cursor, limit=limit)


def job_model_id(session: Session, job_id: UUID) -> UUID | None:
    """The model that the job made."""
    return session.scalar(select(Model.id).where(Model.job_id == job_id))


def list_metrics(session: Session, job: Job, *, name: str | None) -> list[JobMetric]:
    """The series of a job in the order of their steps."""
    statement = select(JobMetric).where(JobMetric.job_id == job.id)
    if name is not None:
        statement = statement.where(JobMetric.name == name)
    return list(session.scalars(statement.order_by(JobMetric.name, JobMetric.step)))


def cancel_job(session: Session, caller: Caller, job_id: UUID) -> Job:
    """Stop a job: at once when it has not started, else as soon as its worker notices.

    Asking twice is no error. What waits on the job fails with the reason.

    Raises:
        JobNotFound: There is none, or it is another project's.
        JobAlreadyFinished: It has ended.
    """
    get_job(session, caller, job_id)
    for source in (JobState.WAITING, JobState.QUEUED):
        if move(session, job_id, source, JobState.CANCELLED):
            fail_dependants(session, job_id, "was cancelled")
    # A worker may have claimed it between the two statements.
    move(session, job_id, JobState.RUNNING, JobState.CANCELLING)
    job = get_job(session, caller, job_id)
    if job.state in FINISHED - {JobState.CANCELLED}:
        raise JobAlreadyFinished(f"job_id: the job has ended as {job.state}")
    return job


def retry_job(session: Session, caller: Caller, job_id: UUID) -> Job:
    """Run a job that failed, crashed or was cancelled again, and what waited on it.

    Raises:
        JobNotFound: There is none, or it is another project's.
        JobNotRetryable: It has not ended, ended well, or its data is gone.
    """
    job = get_job(session, caller, job_id)
    if job.dataset_id is None or job.snapshot_id is None:
        raise JobNotRetryable("job_id: the dataset of this job was deleted")
    target = _first_state(session, job.needs_id)
    for source in RETRYABLE:
        if job.state == source and move(
            session,
            job_id,
            source,
            target,
            attempt=0,
            error_code=None,
            error_detail=None,
            finished_at=None,
            started_at=None,
            progress=None,
            hinted_at=None,
        ):
            if target == JobState.QUEUED:
                _hint(session, job_id)
            _retry_dependants(session, job_id)
            return get_job(session, caller, job_id)
    raise JobNotRetryable(
        f"job_id: the job is {job.state}; only failed, crashed and cancelled jobs can be retried"
    )


def succeed(session: Session, job_id: UUID, token: int, model: Model) -> None:
    """End the job well together with its model: both or neither.

    Raises:
        LeaseLost: The job is not held with this token any more, or is being cancelled.
    """
    if not move(session, job_id, JobState.RUNNING, JobState.SUCCEEDED, token=token):
        raise LeaseLost(f"job {job_id} is no longer held with token {token}")
    session.add(model)
    wake_dependants(session, job_id)


def fail(session: Session, job_id: UUID, token: int, *, code: str, detail: str) -> bool:
    """End the job with a reason that people can act on."""
    values = {"error_code": code, "error_detail": detail}
    failed = move(session, job_id, JobState.RUNNING, JobState.FAILED, token=token, **values)
    if failed:
        fail_dependants(session, job_id, "failed")
    return failed


def confirm_cancelled(session: Session, job_id: UUID, token: int) -> bool:
    """The process of a cancelling job is gone."""
    gone = move(session, job_id, JobState.CANCELLING, JobState.CANCELLED, token=token)
    if gone:
        fail_dependants(session, job_id, "was cancelled")
    return gone


def record_progress(
    session: Session,
    job_id: UUID,
    token: int,
    *,
    progress: dict[str, Any],
    metrics: list[tuple[str, int, float]],
) -> None:
    """Write where the job stands.

    Raises:
        LeaseLost: The job is not held with this token any more.
    """
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.fencing_token == token, Job.lease_expires_at.is_not(None))
        .values(progress=progress)
        .returning(Job.id)
    )
    if session.scalar(statement) is None:
        raise LeaseLost(f"job {job_id} is no longer held with token {token}")
    if metrics:
        rows = [{"job_id": job_id, "name": n, "step": s, "value": v} for n, s, v in metrics]
        put = insert(JobMetric).values(rows)
        session.execute(
            put.on_conflict_do_update(
                index_elements=["job_id", "name", "step"],
                set_={"value": put.excluded.value, "recorded_at": func.clock_timestamp()},
            )
        )


def wake_dependants(session: Session, job_id: UUID) -> None:
    """Queue the jobs that waited for this one."""
    for dependant in _dependants(session, job_id, JobState.WAITING):
        if move(session, dependant, JobState.WAITING, JobState.QUEUED):
            _hint(session, dependant)


def fail_dependants(session: Session, job_id: UUID, what: str) -> None:
    """End the jobs that waited for this one, and those that waited for them."""
    detail = f"job {job_id}, which this job needs, {what}; retry that job to run both"
    for dependant in _dependants(session, job_id, JobState.WAITING):
        if move(
            session,
            dependant,
            JobState.WAITING,
            JobState.FAILED,
            error_code="NeededJobFailed",
            error_detail=detail,
        ):
            fail_dependants(session, dependant, "failed")


def _retry_dependants(session: Session, job_id: UUID) -> None:
    failed = select(Job.id).where(
        Job.needs_id == job_id,
        Job.state == JobState.FAILED,
        Job.error_code == "NeededJobFailed",
        Job.snapshot_id.is_not(None),
    )
    for dependant in session.scalars(failed).all():
        if move(
            session,
            dependant,
            JobState.FAILED,
            JobState.WAITING,
            error_code=None,
            error_detail=None,
            finished_at=None,
            attempt=0,
        ):
            _retry_dependants(session, dependant)


def _dependants(session: Session, job_id: UUID, state: JobState) -> list[UUID]:
    return list(session.scalars(select(Job.id).where(Job.needs_id == job_id, Job.state == state)))


def _first_state(session: Session, needs_id: UUID | None) -> JobState:
    if needs_id is None:
        return JobState.QUEUED
    # The lock orders this read against the needed job's end, which wakes what waits.
    state = session.scalar(select(Job.state).where(Job.id == needs_id).with_for_update(read=True))
    return JobState.QUEUED if state == JobState.SUCCEEDED else JobState.WAITING


def _hint(session: Session, job_id: UUID) -> None:
    session.execute(update(Job).where(Job.id == job_id).values(hinted_at=func.clock_timestamp()))
    outbox.enqueue(session, job_id)
