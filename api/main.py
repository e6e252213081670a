"""The application: settings in, FastAPI out."""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.metadata
import os
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi_offline import FastAPIOffline
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from api import errors, pinned
from api.errors import Problem
from api.examples import with_own_names
from api.exposure import LoopbackOnly, refuse_open_address
from api.headers import allow_origins
from api.inbound import Inbound
from api.lookup import Lookup
from api.middleware import RequestContext
from api.openapi import document
from api.request_rate import RequestRate
from api.routes import (
    aliases,
    augmentations,
    datasets,
    direct,
    events,
    health,
    images,
    imports,
    inference,
    jobs,
    labels,
    logs,
    models,
    openai,
    search,
    snapshots,
    usage,
    webhooks,
)
from api.schemas.inference import EmbedIn, PredictIn
from api.schemas.labels import LabelsIn
from api.schemas.search import SearchIn
from api.short_path import ShortPath
from api.streams import Streams, close_on_signal
from api.tracing import trace_requests
from core.config import Settings, process_settings
from core.db.session import make_engine, session_factory
from core.exposition import forget_dead
from core.gathered_log import gathered
from core.images.pool import DecodePool
from core.images.reader import ImageReader
from core.jobs import outbox
from core.jobs.census import Census
from core.jobs.queue import CeleryQueue, make_celery
from core.loading import loading
from core.storage.store import open_store
from core.telemetry import configure_logging, logger

log = logger(__name__)
OPEN_FILES = 65_536
REFERRED = (Problem, LabelsIn, EmbedIn, PredictIn, SearchIn)
DESCRIPTION = """
From unlabelled images and a handful of labels to a model that an application can call.

1. `POST /datasets`, then `POST /datasets/{id}/images` and `PUT /datasets/{id}/labels`
2. `POST /jobs` with `{"stage": "pipeline", "dataset_id": …}`; watch `GET /jobs/{id}`
3. `PUT /aliases/{name}`, then `POST /predict` and `POST /embed`
"""
TAGS = {
    "datasets": "Named sets of images and labels.",
    "images": "Upload, list, get back.",
    "labels": "The few that people gave.",
    "snapshots": "Datasets as jobs froze them.",
    "jobs": "The three stages: pretrain, finetune, distill; and embed, evaluate.",
    "models": "What jobs made, with metrics and lineage.",
    "aliases": "Stable names that applications call.",
    "inference": "Vectors and classes of images.",
    "webhooks": "Be told when jobs end.",
    "usage": "What the project holds and may hold.",
    "health": "Alive, ready, measured.",
}


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API over the given settings, or over those of the environment."""
    settings = settings or process_settings()
    refuse_open_address(settings)
    configure_logging(settings)
    # Swagger UI from a wheel: /docs also works where no browser reaches a CDN.
    app = FastAPIOffline(
        title="Fewlabels",
        version=importlib.metadata.version("fewlabels"),
        description=DESCRIPTION,
        lifespan=_lifespan,
        openapi_tags=[{"name": name, "description": said} for name, said in TAGS.items()],
    )
    database = make_engine(settings.sqlalchemy_url)
    app.state.settings = settings
    app.state.database = database
    app.state.sessions = session_factory(database)
    app.state.store = open_store(settings.store_url)
    app.state.decoders = DecodePool.from_settings(settings)
    processes = settings.inference_threads
    app.state.reader = ImageReader(DecodePool.from_settings(settings, processes=processes))
    app.state.queue = CeleryQueue(make_celery(settings))
    app.state.census = Census(app.state.sessions)
    app.state.lookup = Lookup(app.state.sessions, app.state.store, settings)
    app.state.inbound = Inbound(settings)
    app.state.pinned = pinned.PinnedModels(app.state.sessions, app.state.store, settings)
    outbox.install(app.state.sessions, app.state.queue)
    errors.install(app)
    _add_middleware(app, settings)
    _include_routers(app, settings)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    # From the inside out; all but the first are passed by calls that go the short path, too.
    # Inside of RequestContext, which gives its refusals the form of all others.
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_json_bytes)
    app.add_middleware(
        ShortPath,
        routes=inference.router.routes,
        max_body_size=settings.max_inference_bytes,
        handlers=app.exception_handlers,
    )
    allow_origins(app, settings)
    if settings.auth_mode == "off":
        app.add_middleware(LoopbackOnly)
    app.add_middleware(RequestContext, tls=settings.tls)
    trace_requests(app, settings)


def _include_routers(app: FastAPI, settings: Settings) -> None:
    app.include_router(images.uploads, max_body_size=settings.max_upload_bytes)
    app.include_router(inference.router, max_body_size=settings.max_inference_bytes)
    app.include_router(openai.router, max_body_size=settings.max_inference_bytes)
    app.include_router(search.searches, max_body_size=settings.max_inference_bytes)
    for module in (
        datasets,
        augmentations,
        images,
        imports,
        direct,
        labels,
        snapshots,
        jobs,
        events,
        logs,
        models,
        search,
        aliases,
        webhooks,
        usage,
        health,
    ):
        app.include_router(module.router)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    _raise_file_limit()
    state.request_rate = RequestRate(state.settings)
    state.streams = Streams(state.sessions, state.settings)
    close_on_signal(state.streams)
    await run_in_threadpool(state.store.prepare)
    # PyTorch takes seconds to load: other requests are answered meanwhile.
    state.engine = asyncio.create_task(_start_engine(state.settings))
    beside = [asyncio.create_task(pinned.start(state))]
    if state.settings.api_processes > 1:
        await run_in_threadpool(forget_dead, state.settings)
        beside.append(asyncio.create_task(_end_with_parent()))
    try:
        with gathered():
            yield
    finally:
        for task in beside:
            task.cancel()
        engine = await state.engine
        await engine.close()
        await run_in_threadpool(state.decoders.close)
        await run_in_threadpool(state.reader.close)
        await state.request_rate.close()
        state.database.dispose()


async def _end_with_parent() -> None:
    # A killed parent cannot end its processes, which would go on to hold the port.
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(1)
    log.error("the parent process is gone")
    signal.raise_signal(signal.SIGTERM)


def _raise_file_limit() -> None:
    # A form with thousands of files holds as many open; the usual soft limit is 1,024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _start_engine(settings: Settings) -> Any:
    # Imported by name in a thread: importing this module must not load PyTorch.
    with loading():
        module = await run_in_threadpool(importlib.import_module, "core.inference.engine")
    engine = module.Engine(settings)
    # Half a million objects of libraries: without this every full collection walks through them,
    # while no request is answered.
    gc.collect()
    gc.freeze()
    return engine


def _openapi(app: FastAPI) -> dict[str, Any]:
    made = document(app, referred=REFERRED)
    # Asked for when somebody opens /docs, on his own machine: a query on the loop is no harm.
    own = app.state.settings.auth_mode == "off"
    return with_own_names(made, app.state.sessions) if own else made
