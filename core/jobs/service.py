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
from core.errors import (
    DatasetNotFound,
    JobAlreadyFinished,
    JobNotFound,
    JobNotRetryable,
    LeaseLost,
    SpecInvalid,
)
from core.jobs import checkpoints, outbox
from core.jobs.chain import fail_dependants, first_state, retry_dependants, wake_dependants
from core.jobs.origin import new_origin
from core.jobs.starts import deleted_start
from core.jobs.states import FINISHED, RETRYABLE, JobState, move
from core.quota import hold_project, require_job_room

_FRESH: dict[str, None] = dict.fromkeys(
    ("error_code", "error_detail", "finished_at", "started_at", "progress")
)


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A job about to be made: what was asked, what was resolved, what it waits for."""

    stage: str
    spec: dict[str, Any]
    plan: dict[str, Any]
    needs_id: UUID | None
    priority: int = 0

    @property
    def device(self) -> str:
        """Whose workers may take it."""
        return "gpu" if self.plan.get("device") == "cuda" else "cpu"


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
        SpecInvalid: A needed job has ended without a result, or its model was deleted.
    """
    get_dataset(session, caller, snapshot.dataset_id, lock=True)
    pipeline_id = uuid4() if len(planned) > 1 else None
    jobs: list[Job] = []
    for item in planned:
        needs_id = item.needs_id or (jobs[-1].id if jobs else None)
        state = first_state(session, needs_id)
        if state is None:
            raise SpecInvalid(f"needs: job {needs_id} has ended without a result; retry it first")
        if gone := deleted_start(session, caller.project_id, spec={}, needs_id=item.needs_id):
            raise SpecInvalid(f"needs: {gone}")
        job = _row(snapshot, item, caller, state=state, max_attempts=max_attempts)
        job.pipeline_id, job.needs_id = pipeline_id, needs_id
        session.add(job)
        session.flush()
        jobs.append(job)
        if state == JobState.QUEUED:
            outbox.hint(session, job.id)
    return jobs


def _row(
    snapshot: Snapshot, item: PlannedJob, caller: Caller, *, state: JobState, max_attempts: int
) -> Job:
    return Job(
        id=uuid4(),
        project_id=caller.project_id,
        dataset_id=snapshot.dataset_id,
        snapshot_id=snapshot.id,
        stage=item.stage,
        state=state,
        spec=item.spec,
        plan=item.plan,
        priority=item.priority,
        device=item.device,
        max_attempts=max_attempts,
        **new_origin(),
    )


def get_job(session: Session, caller: Caller, job_id: UUID, *, lock: bool = False) -> Job:
    """The caller's job; `lock` keeps its state as it is until the transaction ends.

    Raises:
        JobNotFound: There is none, or it is another project's.
    """
    statement = select(Job).where(Job.id == job_id, Job.project_id == caller.project_id)
    if lock:
        statement = statement.with_for_update()
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


def cancel_job(session: Session, caller: Caller, job_id: UUID) -> Job:
    """Stop a job: at once when it has not started, else as soon as its worker notices.

    Asking twice is no error. What waits on the job fails with the reason.

    Raises:
        JobNotFound: There is none, or it is another project's.
        JobAlreadyFinished: It has ended.
    """
    # Locked, since a job may be claimed or handed back while this looks at its state.
    job = get_job(session, caller, job_id, lock=True)
    state = JobState(job.state)
    if state in {JobState.WAITING, JobState.QUEUED}:
        move(session, job_id, state, JobState.CANCELLED)
        fail_dependants(session, job_id, "was cancelled")
    elif state == JobState.RUNNING:
        move(session, job_id, state, JobState.CANCELLING)
    elif state in FINISHED - {JobState.CANCELLED}:
        raise JobAlreadyFinished(f"job_id: the job has ended as {state}")
    return get_job(session, caller, job_id)


def retry_job(
    session: Session,
    caller: Caller,
    job_id: UUID,
    *,
    most_unfinished: int = 0,
    from_beginning: bool = False,
) -> Job:
    """Run a job that failed, crashed or was cancelled again, and what waited on it.

    It goes on from its last checkpoint if there is one, unless it is to start from the beginning.

    Raises:
        JobNotFound: There is none, or it is another project's.
        JobNotRetryable: It has not ended, ended well, its data or the model that it starts from
            is gone, or it needs a job that has ended without a result.
        TooManyJobs: The project has as many unfinished jobs as it may have (0: any number).
    """
    job = get_job(session, caller, job_id)
    _hold_dataset(session, caller, job)
    hold_project(session, caller.project_id)
    # The needed job is locked before this one, as everywhere.
    target = first_state(session, job.needs_id)
    job = get_job(session, caller, job_id, lock=True)
    state = JobState(job.state)
    if state not in RETRYABLE:
        raise JobNotRetryable(
            f"job_id: the job is {state}; only failed, crashed and cancelled jobs can be retried"
        )
    if target is None:
        raise JobNotRetryable(
            f"job_id: job {job.needs_id}, which this job needs, has ended without a result; "
            "retry that job first"
        )
    if gone := deleted_start(session, caller.project_id, spec=job.spec, needs_id=job.needs_id):
        raise JobNotRetryable(f"job_id: {gone}; order a new job")
    require_job_room(session, caller.project_id, wanted=1, most=most_unfinished)
    fresh: dict[str, Any] = {**_FRESH, "attempt": 0, "hinted_at": None, "not_before": None}
    if from_beginning:
        checkpoints.forget(session, [job_id])
        fresh["beginning"] = Job.beginning + 1
    move(session, job_id, state, target, **fresh)
    if target == JobState.QUEUED:
        outbox.hint(session, job_id)
    retry_dependants(session, job_id)
    return get_job(session, caller, job_id)


def succeed(session: Session, job_id: UUID, token: int, model: Model) -> None:
    """End the job well together with its model: both or neither.

    Raises:
        LeaseLost: The job is not held with this token any more, or is being cancelled.
    """
    if not move(session, job_id, JobState.RUNNING, JobState.SUCCEEDED, token=token):
        raise LeaseLost(f"job {job_id} is no longer held with token {token}")
    session.add(model)
    wake_dependants(session, job_id)
    outbox.hint_next(session, job_id)


def fail(session: Session, job_id: UUID, token: int, *, code: str, detail: str) -> bool:
    """End the job with a reason that people can act on."""
    values = {"error_code": code, "error_detail": detail}
    failed = move(session, job_id, JobState.RUNNING, JobState.FAILED, token=token, **values)
    if failed:
        fail_dependants(session, job_id, "failed")
        outbox.hint_next(session, job_id)
    return failed


def confirm_cancelled(session: Session, job_id: UUID, token: int) -> bool:
    """The process of a cancelling job is gone."""
    gone = move(session, job_id, JobState.CANCELLING, JobState.CANCELLED, token=token)
    if gone:
        fail_dependants(session, job_id, "was cancelled")
        outbox.hint_next(session, job_id)
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


def _hold_dataset(session: Session, caller: Caller, job: Job) -> None:
    gone = JobNotRetryable("job_id: the dataset of this job was deleted")
    if job.dataset_id is None or job.snapshot_id is None:
        raise gone
    try:
        get_dataset(session, caller, job.dataset_id, lock=True)
    except DatasetNotFound:
        raise gone from None
