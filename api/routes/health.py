"""Alive, ready, measured."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from core.errors import FewlabelsError
from core.exposition import exposition
from core.telemetry import logger

if TYPE_CHECKING:
    from core.inference.engine import Engine

router = APIRouter(tags=["health"])
log = logger(__name__)
CHECK_SECONDS = 5.0


class Health(BaseModel):
    """The process answers."""

    status: str = Field(examples=["ok"])


class Readiness(BaseModel):
    """Whether each server behind this one answers."""

    ready: bool
    checks: dict[str, str] = Field(examples=[{"database": "ok", "broker": "ok", "blobs": "ok"}])


@router.get("/healthz", summary="The process is alive")
async def healthz() -> Health:
    return Health(status="ok")


@router.get(
    "/readyz",
    summary="Database, broker, blobs and models answer",
    responses={503: {"model": Readiness, "description": "Something does not answer."}},
)
async def readyz(request: Request, response: Response) -> Readiness:
    state = request.app.state

    def database() -> None:
        with state.sessions() as session:
            session.execute(text("SELECT 1"))

    probes: dict[str, Callable[[], Any]] = {
        "database": database,
        "broker": state.queue.check,
        "blobs": state.store.check,
    }
    outcomes = await asyncio.gather(*(_probe(name, check) for name, check in probes.items()))
    checks = dict(zip(probes, outcomes, strict=True))
    checks["engine"] = await _engine(state)
    ready = all(outcome == "ok" for outcome in checks.values())
    response.status_code = 200 if ready else 503
    return Readiness(ready=ready, checks=checks)


async def _probe(name: str, check: Callable[[], Any]) -> str:
    return await _outcome(name, run_in_threadpool(check))


async def _outcome(
    name: str, checking: Awaitable[None], *, seconds: float | None = CHECK_SECONDS
) -> str:
    try:
        async with asyncio.timeout(seconds):
            await checking
    except (OSError, SQLAlchemyError, FewlabelsError, RuntimeError, TimeoutError) as error:
        # The words may name hosts and users: they belong into the log.
        log.warning("not ready", part=name, error=repr(error))
        return "does not answer"
    return "ok"


async def _engine(state: Any) -> str:
    if state.engine.done() and state.engine.exception() is not None:
        log.warning("not ready", part="engine", error=repr(state.engine.exception()))
        return "does not answer"
    if not state.engine.done() or not state.pinned.warmed:
        return "loading"
    engine = cast("Engine", await state.engine)
    # It has a limit of its own, which is a setting.
    return await _outcome("engine", engine.check(), seconds=None)


@router.get("/metrics", response_class=Response, summary="Prometheus metrics")
async def metrics(request: Request) -> Response:
    settings = request.app.state.settings
    return Response(await run_in_threadpool(exposition, settings), media_type=CONTENT_TYPE_LATEST)
