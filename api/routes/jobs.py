"""Jobs: ask for a stage or the whole chain, watch, cancel, retry."""

from __future__ import annotations

import itertools
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
    out = [_out(session, job) for job in jobs]
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
    items = [_out(session, job) for job in page.items]
    return JobPage(items=items, next_cursor=page.next_cursor)


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
) -> MetricsOut:
    job = service.get_job(session, caller, job_id)
    rows = service.list_metrics(session, job, name=name)
    series = []
    for series_name, group in itertools.groupby(rows, key=lambda row: row.name):
        points = list(group)
        steps, values = [p.step for p in points], [p.value for p in points]
        series.append(SeriesOut(name=series_name, steps=steps, values=values))
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
    body: Annotated[RetryIn | None, Body()] = None,
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
    failed = job.error_code is not None
    return JobOut(
        id=job.id,
        stage=job.stage,
        state=job.state,
        dataset_id=job.dataset_id,
        snapshot_id=job.snapshot_id,
        pipeline_id=job.pipeline_id,
        needs=job.needs_id,
        model_id=service.job_model_id(session, job.id),
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        spec=job.spec,
        plan=job.plan,
        progress=job.progress,
        result=report_of_job(session, job.id, job.stage),
        error=JobErrorOut(code=job.error_code or "", detail=job.error_detail or "")
        if failed
        else None,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )
