"""A job engine of its own: database, broker, blobs, digits, and real worker processes."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psutil
import pytest
from PIL import Image as Pillow
from pydantic import SecretStr
from sklearn.datasets import load_digits
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from core.auth import Caller, ensure_project
from core.config import Settings, child_environment
from core.datasets.labels import Assignment, put_labels
from core.datasets.references import Reference
from core.datasets.service import create_dataset
from core.db.models import Job, Model, Snapshot
from core.db.session import make_engine, session_factory
from core.images.ingest import IncomingFile, ingest
from core.images.pool import DecodeLimits, DecodePool
from core.images.recording import ImageLimits
from core.jobs import outbox
from core.jobs.queue import IMPORTS_QUEUE, JOBS_QUEUES, SWEEPS_QUEUE, CeleryQueue, make_celery
from core.jobs.states import FINISHED
from core.jobs.submission import submit
from core.storage.store import BlobStore, open_store
from tests.jobs_database import fresh_database

IMAGES = 160
LABELLED = 80
TINY: dict[str, Any] = {"encoder": "resnet10_tiny", "image_size": 16, "batch_size": 32}
LONG: dict[str, Any] = {"stage": "pretrain", **TINY, "epochs": 100_000}


@dataclass
class Engine:
    """Real servers and workers, and what a test does with them."""

    settings: Settings
    sessions: sessionmaker[Session]
    store: BlobStore
    caller: Caller
    dataset_id: UUID
    folder: Path
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, **changes: object) -> subprocess.Popen[bytes]:
        """A worker process for `jobs`, `imports` or `sweeps`."""
        settings = self.settings.model_copy(update=changes)
        clock = ["-B", "-s", str(self.folder / "beat")] if name == "sweeps" else []
        queue = {
            "sweeps": SWEEPS_QUEUE,
            "imports": IMPORTS_QUEUE,
        }.get(name, JOBS_QUEUES["cpu"])
        command = [sys.executable, "-m", "celery", "-A", "worker.celery_app", "worker"]
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            process = subprocess.Popen(
                [*command, "-Q", queue, "-n", f"{name}@%h", "--without-mingle", *clock],
                cwd=self.folder,
                env={**child_environment(settings), "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.workers[name] = process
        return process

    def running_worker(self) -> subprocess.Popen[bytes]:
        """The worker for the jobs, started again when a test has ended it."""
        process = self.workers.get("jobs")
        if process is None or process.poll() is not None:
            process = self.start("jobs")
        return process

    def submit(self, stage: str = "pretrain", **options: Any) -> list[UUID]:
        spec = {"stage": stage, "dataset_id": str(self.dataset_id), **options}
        with self.sessions.begin() as session:
            jobs = submit(session, self.caller, spec, store=self.store, settings=self.settings)
            return [job.id for job in jobs]

    def submit_long(self, **options: Any) -> UUID:
        return self.submit(**{**LONG, **options})[0]

    def row(self, job_id: UUID) -> Job:
        with self.sessions.begin() as session:
            return session.scalars(select(Job).where(Job.id == job_id)).one()

    def set(self, job_id: UUID, **values: object) -> None:
        with self.sessions.begin() as session:
            session.execute(update(Job).where(Job.id == job_id).values(**values))

    def snapshot_digest(self) -> str:
        """The digest of the frozen dataset, which all jobs here share."""
        with self.sessions.begin() as session:
            return session.scalars(select(Snapshot.digest)).one()

    def models(self, job_id: UUID) -> list[Model]:
        with self.sessions.begin() as session:
            return list(session.scalars(select(Model).where(Model.job_id == job_id)))

    def wait_for(self, job_id: UUID, state: str, *, seconds: float = 90) -> Job:
        """The row once it is in the state; another end fails the test at once."""

        def there() -> bool:
            row = self.row(job_id)
            if row.state != state and row.state in FINISHED:
                pytest.fail(f"{row.state}: {row.error_code} {row.error_detail}\n{self.log(job_id)}")
            return row.state == state

        wait_until(there, f"job {state}", seconds=seconds, show=lambda: self.log(job_id))
        return self.row(job_id)

    def wait_for_step(self, job_id: UUID, step: int = 1, *, attempt: int = 1) -> Job:
        """The row once training has come this far in this attempt."""

        def there() -> bool:
            row = self.row(job_id)
            progress = row.progress or {}
            trains = progress.get("phase") == "training" and progress["step"] >= step
            return row.attempt >= attempt and trains

        wait_until(there, f"step {step}", seconds=90, show=lambda: self.log(job_id))
        return self.row(job_id)

    def child_of(self, job_id: UUID) -> psutil.Process:
        """The process that runs the job."""
        [process] = children_of(job_id)
        return process

    def log(self, job_id: UUID) -> str:
        path = self.settings.data_dir / "logs" / "jobs" / f"{job_id}.log"
        said = path.read_text()[-3000:] if path.exists() else "no job log"
        logs = [(self.folder / f"{name}.log").read_text()[-3000:] for name in self.workers]
        return "\n----\n".join([said, *logs])


def children_of(job_id: UUID) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if "worker.run_job" in command and str(job_id) in command:
            found.append(process)
    return found


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(
    there: Callable[[], bool],
    what: str,
    *,
    seconds: float = 30,
    show: Callable[[], str] = lambda: "",
) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} seconds: {what}\n{show()}")
        time.sleep(0.1)


@contextmanager
def job_engine(postgres_url: str, broker_url: str, folder: Path) -> Iterator[Engine]:
    """Everything but the workers, which the test starts; all ends with the block."""
    with fresh_database(postgres_url) as url:
        settings = Settings(
            database_url=SecretStr(url.replace("postgresql+psycopg", "postgresql")),
            broker_url=SecretStr(broker_url),
            data_dir=folder / "data",
            device="cpu",
            export_onnx=False,  # half a second to ten for each job; tests/unit/stages has it
            lease_seconds=4,
            sweep_seconds=1,
            retry_pause_seconds=0,
            ready_process=False,
            cancel_grace_seconds=5,
            checkpoint_seconds=1,
            worker_concurrency=2,
            _env_file=None,
        )
        database = make_engine(url)
        sessions = session_factory(database)
        app = make_celery(settings)
        outbox.install(sessions, CeleryQueue(app))
        store = open_store(settings.store_url)
        settings.data_dir.mkdir()
        store.prepare()
        caller, dataset_id = upload_digits(sessions, store)
        engine = Engine(settings, sessions, store, caller, dataset_id, folder)
        try:
            yield engine
        finally:
            end_processes(engine)
            app.close()
            database.dispose()


def upload_digits(
    sessions: sessionmaker[Session],
    store: BlobStore,
    *,
    images: int = IMAGES,
    labelled: int = LABELLED,
) -> tuple[Caller, UUID]:
    """Handwritten digits of 8 by 8 pixels, the first of them labelled."""
    data = load_digits()
    files = []
    for number, pixels in enumerate(data.images[:images]):
        buffer = io.BytesIO()
        Pillow.fromarray((pixels * 15).astype(np.uint8)).save(buffer, "PNG")
        files.append(IncomingFile(f"{number}.png", buffer.getvalue()))
    limits = DecodeLimits(max_bytes=10**6, max_pixels=10**6, seconds=10.0, memory_mb=512)
    with sessions.begin() as session:
        caller = Caller(ensure_project(session, "engine"), frozenset({"admin"}))
        dataset = create_dataset(
            session, caller, name="digits", test_fraction=0.15, validation_fraction=0.15
        )
    limit = ImageLimits(max_images=10**6)
    with closing(DecodePool(limits, processes=1)) as decoders:
        report = ingest(sessions, store, dataset.id, files, limits=limit, decoders=decoders)
    assert report.added == images
    with sessions.begin() as session:
        labels = [
            Assignment(number, Reference(file=f"{number}.png"), f"digit {data.target[number]}")
            for number in range(labelled)
        ]
        put_labels(session, caller, dataset, labels, max_classes=10)
        return caller, dataset.id


def end_processes(engine: Engine) -> None:
    for process in engine.workers.values():
        process.send_signal(signal.SIGTERM)
    for process in engine.workers.values():
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for left in psutil.process_iter(["environ"]):
        environment = left.info["environ"] or {}
        mine = environment.get("FEWLABELS_DATA_DIR") == str(engine.settings.data_dir)
        if mine and left.pid != os.getpid():
            left.kill()


def sha256_of_blob(store: BlobStore, digest: str) -> str:
    return hashlib.sha256(store.get(f"models/{digest}")).hexdigest()
