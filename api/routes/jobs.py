"""Jobs: ask for a stage or the whole chain, watch, cancel, retry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Query, Response
from sqlalchemy.orm import Session

from api.auth import ReadCaller, WriteCaller
from api.dependencies import SessionDep, SettingsDep, StoreDep
from api.errors import responses
from api.guard import GuardedRoute
from api.schemas.jobs import (
    JOB_EXAMPLES,
    JobCreatedOut,
    JobErrorOut,
    JobFilter,
    JobIn,
    JobOut,
    JobPage,
    MetricsOut,
    RetryIn,
    SeriesOut,
    TimeLeftOut,
)
from api.schemas.text import Text
from core.db.models import Job
from core.errors import (
    BodyTooLarge,
    DatasetNotFound,
    JobAlreadyFinished,
    JobNotFound,
    JobNotRetryable,
    ModelNotFound,
    NotEnoughImages,
    NotEnoughLabels,
    SpecInvalid,
    TooManyJobs,
    WrongModelKind,
)
from core.jobs import service
from core.jobs.reports import report_of_job
from core.jobs.series import LEAST_POINTS, list_series
from core.jobs.standing import queue_positions, time_left
from core.jobs.states import JobState
from core.jobs.submission import submit

router = APIRouter(tags=["jobs"], route_class=GuardedRoute)


@router.post(
    "/jobs",
    status_code=202,
    response_model=JobCreatedOut,
    responses=responses(
        DatasetNotFound,
        ModelNotFound,
        JobNotFound,
        SpecInvalid,
        NotEnoughImages,
        NotEnoughLabels,
        WrongModelKind,
        TooManyJobs,
        BodyTooLarge,
    ),
    summary="Start a stage, or all three",
)
def create_job(
    body: Annotated[JobIn, Body(openapi_examples=JOB_EXAMPLES)],
    session: SessionDep,
    caller: WriteCaller,
    store: StoreDep,
    settings: SettingsDep,
    response: Response,
) -> JobCreatedOut:
    """A pipeline answers with its last job; `jobs` has the whole chain."""
    jobs = submit(session, caller, body.model_dump(mode="json"), store=store, settings=settings)
    response.headers["Location"] = f"/jobs/{jobs[-1].id}"
    session.expire_all()
    out = _all_out(session, jobs)
    return JobCreatedOut(**out[-1].model_dump(), jobs=out)


@router.get("/jobs", responses=responses(), summary="List jobs, newest first")
def list_jobs(
    session: SessionDep,
    caller: ReadCaller,
    filters: Annotated[JobFilter, Query()],
) -> JobPage:
    wanted = filters.model_dump(exclude={"cursor", "limit"})
    page = service.list_jobs(
        session, caller, filters=wanted, cursor=filters.cursor, limit=filters.limit
    )
    return JobPage(items=_all_out(session, page.items), next_cursor=page.next_cursor)


@router.get("/jobs/{job_id}", responses=responses(JobNotFound), summary="Where a job stands")
def get_job(job_id: UUID, session: SessionDep, caller: ReadCaller) -> JobOut:
    return _out(session, service.get_job(session, caller, job_id))


@router.get(
    "/jobs/{job_id}/metrics", responses=responses(JobNotFound), summary="Loss and other series"
)
def get_metrics(
    job_id: UUID,
    session: SessionDep,
    caller: ReadCaller,
    name: Annotated[Text | None, Query(description="Only this series.")] = None,
    points: Annotated[
        int | None,
        Query(
            ge=LEAST_POINTS,
            le=100_000,
            description="Most points of a series: the first, the last, and the lowest and "
            "highest of equal parts between. Without it all.",
        ),
    ] = None,
) -> MetricsOut:
    job = service.get_job(session, caller, job_id)
    found = list_series(session, job, name=name, points=points)
    series = [SeriesOut(name=one.name, steps=one.steps, values=one.values) for one in found]
    return MetricsOut(job_id=job.id, series=series)


@router.post(
    "/jobs/{job_id}/cancel",
    responses=responses(JobNotFound, JobAlreadyFinished),
    summary="Stop a job; asking twice is no error",
)
def cancel_job(job_id: UUID, session: SessionDep, caller: WriteCaller) -> JobOut:
    return _out(session, service.cancel_job(session, caller, job_id))


@router.post(
    "/jobs/{job_id}/retry",
    status_code=202,
    responses=responses(JobNotFound, JobNotRetryable, TooManyJobs, BodyTooLarge),
    summary="Run a failed, crashed or cancelled job again, and what waited on it",
)
def retry_job(
    job_id: UUID,
    session: SessionDep,
    caller: WriteCaller,
    settings: SettingsDep,
    body: Annotated[RetryIn | None, Body(examples=[{"from": "checkpoint"}])] = None,
) -> JobOut:
    job = service.retry_job(
        session,
        caller,
        job_id,
        most_unfinished=settings.max_unfinished_jobs,
        from_beginning=body is not None and body.from_ == "beginning",
    )
    return _out(session, job)


def _out(session: Session, job: Job) -> JobOut:
    return _all_out(session, [job])[0]


def _all_out(session: Session, jobs: Sequence[Job]) -> list[JobOut]:
    queued = [job.id for job in jobs if job.state == JobState.QUEUED]
    positions = queue_positions(session, queued)
    return [_as_out(session, job, positions.get(job.id)) for job in jobs]


def _as_out(session: Session, job: Job, position: int | None) -> JobOut:
    failed = job.error_code is not None
    model_id = service.job_model_id(session, job.id)
    left = time_left(job)
    return JobOut(
        id=job.id,
        stage=job.stage,
        state=job.state,
        dataset_id=job.dataset_id,
        snapshot_id=job.snapshot_id,
        pipeline_id=job.pipeline_id,
        needs=job.needs_id,
        model_id=model_id,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        priority=job.priority,
        device=job.device,
        not_before=job.not_before,
        queue_position=position,
        spec=job.spec,
        plan=job.plan,
        progress=job.progress,
        time_left=left and TimeLeftOut(seconds=left.seconds, estimated_from=left.estimated_from),
        result=report_of_job(session, job.id, job.stage),
        error=JobErrorOut(code=job.error_code or "", detail=job.error_detail or "")
        if failed
        else None,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        links=_links(job, model_id),
    )


def _links(job: Job, model_id: UUID | None) -> dict[str, str]:
    own = f"/jobs/{job.id}"
    links = {name: f"{own}/{name}" for name in ("events", "logs", "metrics")}
    if model_id is not None:
        links["model"] = f"/models/{model_id}"
    if job.snapshot_id is not None:
        links["snapshot"] = f"/snapshots/{job.snapshot_id}"
    if job.dataset_id is not None:
        links["dataset"] = f"/datasets/{job.dataset_id}"
    if job.needs_id is not None:
        links["needs"] = f"/jobs/{job.needs_id}"
    return {"self": own, **links}
