"""Jobs that run as if a worker had taken them, and the service on a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import uvicorn
from sqlalchemy.orm import Session

from api.main import create_app
from core.config import Settings
from core.jobs import leases
from core.jobs.leases import Claim
from core.jobs.service import fail, record_progress
from tests.integration.api.problems import pictures

Sessions = Callable[[], Session]


@contextmanager
def served(settings: Settings) -> Iterator[tuple[str, uvicorn.Server]]:
    """The service in a thread, by a real server with its own loop; a job waits for nobody."""
    app = create_app(settings)
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=10)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", server
    finally:
        app.state.streams.close()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def begin(client: Any, add_dataset: Callable[..., str], session: Sessions) -> Claim:
    """A job that runs."""
    order = {"stage": "pretrain", "dataset_id": add_dataset(pictures(3)), "batch_size": 2}
    job_id = UUID(client.post("/jobs", json=order).json()["id"])
    with session() as opened, opened.begin():
        held = leases.claim(opened, job_id, worker="w", lease_seconds=600)
    assert held is not None
    return held


def step(session: Sessions, held: Claim, number: int, **progress: object) -> None:
    """One step of its training."""
    told = {"step": number, **progress}
    metrics = [("loss", number, float(number))]
    with session() as opened, opened.begin():
        record_progress(opened, held.job_id, held.token, progress=told, metrics=metrics)


def end(session: Sessions, held: Claim) -> None:
    """Its failure."""
    with session() as opened, opened.begin():
        assert fail(opened, held.job_id, held.token, code="SpecInvalid", detail="because")
