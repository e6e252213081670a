"""What does a job cost beyond its work? And how fast are jobs handed out, and watched?

A small pre-training on an idle service with embedded servers: from the POST to its first step, from
its last step to `succeeded`. Then queued jobs are claimed and ended by threads that do only that,
beside the limit: threads that update and commit one row each on that server. Then hundreds
listen to the events of one job, and the API's memory and processor time are read.

Run with: python -m benchmarks.jobs [--rounds 5] [--claims 1000] [--listeners 200]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import numpy as np
import psutil
from sqlalchemy import select, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.cells import versions
from benchmarks.ingest import service
from benchmarks.made_up import photograph
from core.auth import Caller, ensure_project
from core.datasets.service import create_dataset
from core.db.events import JobEvent
from core.db.migrating import upgrade
from core.db.models import Job, Model, Snapshot
from core.db.session import make_engine, session_factory
from core.embedded.folder import DataFolder
from core.embedded.postgres import running_url
from core.jobs import leases
from core.jobs.service import PlannedJob, create_jobs, succeed

THREADS = 4
IMAGES, SIDE = 64, 16
TINY = {"encoder": "resnet10_tiny", "image_size": SIDE, "batch_size": 32, "epochs": 4}
WATCHED_SECONDS = 5.0
PATIENCE_SECONDS = 120.0
IDLE_SECONDS = 10.0  # the worker is idle again, and has a process ready


def main() -> None:
    """Measure and print; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--claims", type=int, default=1000)
    parser.add_argument("--listeners", type=int, default=200)
    given = parser.parse_args()
    print(versions())
    with tempfile.TemporaryDirectory(prefix="jobs-") as scratch:
        data = Path(scratch) / "data"
        with service(data) as (url, api):
            found = running_url(DataFolder(data).postgres)
            assert found is not None
            database = found.replace("postgresql://", "postgresql+psycopg://", 1)
            told = overhead(url, database, given.rounds)
            told |= listened(url, psutil.Process(api), given.listeners)
            told |= claimed(database, given.claims)
    print(json.dumps(told))


def overhead(url: str, database: str, rounds: int) -> dict[str, float]:
    """Medians over jobs, one after the other: seconds to the first step, and after the last."""
    sessions = session_factory(make_engine(database))
    first, finish = [], []
    with httpx2.Client(base_url=url, timeout=60) as client:
        dataset_id = upload(client)
        for number in range(rounds):
            job_id = order(client, dataset_id)
            wait(client, job_id)
            time.sleep(IDLE_SECONDS)
            to_first, after_last = _times(sessions, job_id)
            print(f"job {number + 1}: first step {to_first:.2f} s, end {after_last:.2f} s")
            first.append(to_first)
            finish.append(after_last)
    return {
        "first_step_s": round(statistics.median(first), 2),
        "finish_s": round(statistics.median(finish), 2),
    }


def upload(client: httpx2.Client) -> str:
    """A dataset with made-up pictures."""
    random = np.random.default_rng(0)
    dataset_id: str = client.post("/datasets", json={"name": uuid4().hex}).json()["id"]
    files = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(IMAGES):
            path = Path(folder) / f"{number}.png"
            photograph(random, (SIDE, SIDE)).save(path)
            files.append(("files", (path.name, path.read_bytes(), "image/png")))
    client.post(f"/datasets/{dataset_id}/images", files=files).raise_for_status()
    return dataset_id


def order(client: httpx2.Client, dataset_id: str, **options: Any) -> UUID:
    """A small pre-training."""
    body = {"stage": "pretrain", "dataset_id": dataset_id, **TINY, **options}
    return UUID(client.post("/jobs", json=body).raise_for_status().json()["id"])


def wait(client: httpx2.Client, job_id: UUID, states: tuple[str, ...] = ("succeeded",)) -> None:
    """Until the job is in one of the states; SystemExit when it ends in another."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (job := client.get(f"/jobs/{job_id}").json())["state"] not in states:
        if job["error"] or time.monotonic() > deadline:
            raise SystemExit(f"job {job_id} is {job['state']}: {job['error']}")
        time.sleep(0.1)


def _times(sessions: sessionmaker[Session], job_id: UUID) -> tuple[float, float]:
    with sessions.begin() as session:
        job = session.scalars(select(Job).where(Job.id == job_id)).one()
        trains = JobEvent.body["phase"].astext == "training"
        steps = select(JobEvent.created_at).where(JobEvent.job_id == job_id, trains)
        at = list(session.scalars(steps.order_by(JobEvent.id)))
        assert job.finished_at is not None
        ended = job.finished_at
        return (at[0] - job.created_at).total_seconds(), (ended - at[-1]).total_seconds()


def listened(url: str, api: psutil.Process, listeners: int) -> dict[str, Any]:
    """What so many listeners to one job cost the API: megabytes, and a share of one core."""
    with httpx2.Client(base_url=url, timeout=60) as client:
        job_id = order(client, upload(client), epochs=100_000)
        wait(client, job_id, ("running",))
        alone = _cost(api)
        with_them = asyncio.run(_with_listeners(url, job_id, listeners, lambda: _cost(api)))
        client.post(f"/jobs/{job_id}/cancel")
        wait(client, job_id, ("cancelled",))
    return {
        "listeners": {
            "count": listeners,
            "mb": round(with_them[0] - alone[0], 1),
            "cores": round(with_them[1] - alone[1], 3),
        }
    }


async def _with_listeners(
    url: str, job_id: UUID, count: int, measure: Callable[[], tuple[float, float]]
) -> tuple[float, float]:
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        heard = [0] * count

        async def listen(number: int) -> None:
            async with client.stream("GET", f"/jobs/{job_id}/events") as stream:
                async for line in stream.aiter_lines():
                    heard[number] += line.startswith("data:")

        tasks = [asyncio.create_task(listen(number)) for number in range(count)]
        while min(heard) == 0:
            await asyncio.sleep(0.1)
        cost = await asyncio.to_thread(measure)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return cost


def _cost(api: psutil.Process) -> tuple[float, float]:
    before = api.cpu_times()
    time.sleep(WATCHED_SECONDS)
    after = api.cpu_times()
    used = after.user + after.system - before.user - before.system
    return api.memory_info().rss / 2**20, used / WATCHED_SECONDS


def claimed(database: str, count: int) -> dict[str, float]:
    """Jobs a second that threads claim and end, and what of the limit that is."""
    own = make_url(database).set(database=f"claims_{uuid4().hex}")
    engine = make_engine(database)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as admin:
        admin.execute(text(f"CREATE DATABASE {own.database}"))
    upgrade(own.render_as_string(hide_password=False))
    sessions = session_factory(make_engine(own.render_as_string(hide_password=False)))
    ids = _queued(sessions, count)

    def claim_and_end(hinted: UUID) -> None:
        with sessions.begin() as session:
            held = leases.claim_next(
                session, hinted, devices=("cpu",), worker="w", lease_seconds=30
            )
        assert held is not None
        with sessions.begin() as session:
            project_id = session.scalars(select(Job.project_id).where(Job.id == held.job_id)).one()
            succeed(session, held.job_id, held.token, _model(project_id, held.job_id))

    def update(job_id: UUID) -> None:
        for _ in range(2):  # as many commits as a claim and an end
            with sessions.begin() as session:
                session.execute(
                    text("UPDATE jobs SET hinted_at = clock_timestamp() WHERE id = :id"),
                    {"id": job_id},
                )

    limit = _rate(update, ids)
    ours = _rate(claim_and_end, ids)
    return {"claims_per_s": round(ours), "limit_per_s": round(limit)}


def _rate(work: Callable[[UUID], None], ids: list[UUID]) -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(work, ids))
    return len(ids) / (time.perf_counter() - began)


def _queued(sessions: sessionmaker[Session], count: int) -> list[UUID]:
    with sessions.begin() as session:
        caller = Caller(ensure_project(session, "claims"), frozenset({"admin"}))
        dataset = create_dataset(session, caller, name="images")
        snapshot = Snapshot(
            id=uuid4(),
            dataset_id=dataset.id,
            digest="0" * 64,
            image_count=0,
            label_count=0,
            class_names=[],
            facts={},
        )
        session.add(snapshot)
        session.flush()
        jobs = []
        for _ in range(count):
            planned = [PlannedJob("pretrain", {}, {}, None)]
            jobs += create_jobs(session, caller, snapshot, planned, max_attempts=1)
        return [job.id for job in jobs]


def _model(project_id: UUID, job_id: UUID) -> Model:
    return Model(
        id=uuid4(),
        project_id=project_id,
        job_id=job_id,
        kind="encoder",
        manifest={},
        manifest_sha256="0" * 64,
    )


if __name__ == "__main__":
    main()
