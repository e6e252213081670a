"""Usage: what the caller's project holds, and what it may hold."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from api.auth import ReadCaller
from api.dependencies import SessionDep, SettingsDep
from api.errors import responses
from api.guard import GuardedRoute
from api.request_rate import RequestRate
from api.schemas.usage import LimitsOut, UsageOut
from core.config import Settings
from core.quota import usage_of

router = APIRouter(tags=["usage"], route_class=GuardedRoute)


@router.get("/usage", responses=responses(), summary="What the project holds and may hold")
async def get_usage(
    request: Request, session: SessionDep, caller: ReadCaller, settings: SettingsDep
) -> UsageOut:
    rate: RequestRate = request.app.state.request_rate
    usage = await run_in_threadpool(usage_of, session, caller)
    return UsageOut(
        **asdict(usage),
        unfinished_jobs=usage.unfinished_jobs,
        requests_left=await rate.left(caller),
        limits=_limits(settings),
    )


def _limits(settings: Settings) -> LimitsOut:
    keyed = settings.auth_mode == "keys"
    return LimitsOut(
        images=settings.max_project_images or None,
        bytes=settings.max_project_bytes or None,
        images_per_dataset=settings.max_images_per_dataset,
        unfinished_jobs=settings.max_unfinished_jobs or None,
        requests_per_second=(settings.requests_per_second or None) if keyed else None,
        upload_bytes=settings.max_upload_bytes,
        inference_bytes=settings.max_inference_bytes,
        json_bytes=settings.max_json_bytes,
    )
