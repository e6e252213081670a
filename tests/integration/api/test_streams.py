"""Event streams over a real socket: nothing is missed, hundreds listen, everything ends."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import fastapi.routing
import httpx2
import psycopg
import pytest
import uvicorn
from sqlalchemy import make_url
from sqlalchemy.orm import Session

from api.main import create_app
from core.config import Settings
from core.jobs import leases
from core.jobs.leases import Claim
from core.jobs.service import fail, record_progress
from tests.integration.api.problems import assert_problem, pictures

LISTENERS = 300
Told = dict[str, Any]


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


@pytest.fixture(scope="module")
def service(settings: Settings) -> Iterator[str]:
    with served(settings.model_copy(update={"stream_seconds": 60.0})) as (url, _):
        yield url


@pytest.fixture
def begin(
    add_dataset: Callable[..., str], client: Any, session: Callable[[], Session]
) -> Callable[[], Claim]:
    """A job that runs, as if a worker had taken it."""

    def begun() -> Claim:
        order = {"stage": "pretrain", "dataset_id": add_dataset(pictures(3)), "batch_size": 2}
        job_id = UUID(client.post("/jobs", json=order).json()["id"])
        with session() as opened, opened.begin():
            held = leases.claim(opened, job_id, worker="w", lease_seconds=600)
        assert held is not None
        return held

    return begun


def step(session: Callable[[], Session], held: Claim, number: int) -> None:
    with session() as opened, opened.begin():
        record_progress(opened, held.job_id, held.token, progress={"step": number}, metrics=[])


def end(session: Callable[[], Session], held: Claim) -> None:
    with session() as opened, opened.begin():
        assert fail(opened, held.job_id, held.token, code="SpecInvalid", detail="because")


def parsed(block: str) -> Told | None:
    """One event of a stream; None for comments and times to wait."""
    fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
    if "event" not in fields:
        return None
    return {"event": fields["event"], "id": int(fields["id"]), **json.loads(fields["data"])}


def follow(url: str, job_id: UUID, *, last: int | None = None, most: int = 10_000) -> list[Told]:
    """Events until the stream closes, or the connection is dropped after so many."""
    told: list[Told] = []
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    with httpx2.stream("GET", f"{url}/jobs/{job_id}/events", headers=headers, timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for block in blocks(answer):
            if event := parsed(block):
                told.append(event)
            if len(told) >= most:
                break
    return told


def blocks(answer: httpx2.Response) -> Iterator[str]:
    rest = ""
    for piece in answer.iter_text():
        *whole, rest = (rest + piece).split("\n\n")
        yield from whole


def test_who_comes_again_with_the_last_id_has_missed_nothing(
    service: str, begin: Callable[[], Claim], session: Callable[[], Session]
) -> None:
    held = begin()
    for number in range(3):
        step(session, held, number)
    start = follow(service, held.job_id, most=2)
    assert [event.get("state", event.get("step")) for event in start] == ["running", 2]

    def work() -> None:
        for number in range(3, 40):
            step(session, held, number)
        end(session, held)

    writing = threading.Thread(target=work)
    writing.start()
    seen = start
    while seen[-1]["event"] != "end":  # drops the line after every few events
        seen += follow(service, held.job_id, last=seen[-1]["id"], most=7)
    writing.join()
    assert [event["step"] for event in seen if event["event"] == "progress"] == list(range(2, 40))
    error = {"code": "SpecInvalid", "detail": "because"}
    assert seen[-2]["state"] == "failed"
    last = seen[-1]
    assert (last["state"], last["error"], last["id"]) == ("failed", error, seen[-2]["id"])


def test_a_job_that_has_ended_is_told_from_the_beginning_or_in_a_word(
    service: str, begin: Callable[[], Claim], session: Callable[[], Session]
) -> None:
    held = begin()
    step(session, held, 0)
    end(session, held)
    whole = follow(service, held.job_id, last=0)
    states = [event.get("state", "progress") for event in whole]
    assert states == ["queued", "running", "progress", "failed", "failed"]
    short = follow(service, held.job_id)
    assert [event["event"] for event in short] == ["state", "end"]
    assert short == whole[-2:]


def test_hundreds_listen_without_a_thread_or_a_connection_each(
    service: str,
    settings: Settings,
    begin: Callable[[], Claim],
    session: Callable[[], Session],
) -> None:
    held = begin()
    step(session, held, 0)
    threads_before = threading.active_count()

    async def listen(client: httpx2.AsyncClient, opened: asyncio.Semaphore) -> list[int]:
        steps = []
        async with client.stream("GET", f"{service}/jobs/{held.job_id}/events") as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: ") and '"step"' in line:
                    steps.append(json.loads(line[6:])["step"])
                    if len(steps) == 1:
                        opened.release()
        return steps

    async def all_listen() -> tuple[list[list[int]], int, int]:
        limits = httpx2.Limits(max_connections=LISTENERS)
        async with httpx2.AsyncClient(limits=limits, timeout=60) as client:
            opened = asyncio.Semaphore(0)
            tasks = [asyncio.create_task(listen(client, opened)) for _ in range(LISTENERS)]
            for _ in range(LISTENERS):
                await opened.acquire()
            threads, connections = threading.active_count(), backends(settings)
            for number in range(1, 10):
                await asyncio.to_thread(step, session, held, number)
            await asyncio.to_thread(end, session, held)
            return await asyncio.gather(*tasks), threads, connections

    told, threads, connections = asyncio.run(all_listen())
    assert told == [list(range(10))] * LISTENERS
    # Those of the pools, which hundreds of listeners have in common.
    assert threads - threads_before < LISTENERS // 3
    assert connections < LISTENERS // 3


def backends(settings: Settings) -> int:
    """Connections to the test's database."""
    url = make_url(settings.sqlalchemy_url).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        counted = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [url.database]
        ).fetchone()
    assert counted is not None
    return int(counted[0])


def test_too_many_streams_are_refused_and_a_closed_one_makes_room(
    settings: Settings, begin: Callable[[], Claim]
) -> None:
    held = begin()
    few = settings.model_copy(update={"max_project_streams": 1, "stream_seconds": 60.0})
    with served(few) as (url, _):
        address = f"{url}/jobs/{held.job_id}/events"
        with httpx2.stream("GET", address, timeout=30) as answer:
            assert answer.status_code == 200
            refused = httpx2.get(address, timeout=30)
            assert_problem(refused, 429, "the project has 1 event streams open, 1 are allowed")
            assert int(refused.headers["retry-after"]) >= 1
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with httpx2.stream("GET", address, timeout=30) as again:
                if again.status_code == 200:
                    return
            time.sleep(0.1)
        pytest.fail("the closed stream still counts")


def test_a_quiet_stream_has_signs_of_life_and_ends_when_the_server_stops(
    settings: Settings, begin: Callable[[], Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = begin()
    monkeypatch.setattr(fastapi.routing, "_PING_INTERVAL", 0.1)
    with served(settings.model_copy(update={"stream_seconds": 60.0})) as (url, server):
        with httpx2.stream("GET", f"{url}/jobs/{held.job_id}/events", timeout=30) as answer:
            found = []
            for block in blocks(answer):
                found.append(block)
                if found.count(": ping") == 2:
                    server_app = server.config.app
                    server_app.state.streams.close()  # type: ignore[union-attr]
        assert found.count(": ping") >= 2  # and the loop has ended


def test_a_stream_closes_after_its_time(settings: Settings, begin: Callable[[], Claim]) -> None:
    held = begin()
    with served(settings.model_copy(update={"stream_seconds": 0.3})) as (url, _):
        told = follow(url, held.job_id)
    assert [event["event"] for event in told] == ["state"]


def test_an_id_that_is_none_is_refused(service: str, begin: Callable[[], Claim]) -> None:
    held = begin()
    for wrong in ("x", "-1", str(2**63)):
        headers = {"Last-Event-ID": wrong}
        answer = httpx2.get(f"{service}/jobs/{held.job_id}/events", headers=headers, timeout=30)
        assert_problem(answer, 422, "last-event-id")
