"""A migrated database of its own with jobs in it, and a queue that only remembers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import select, update
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

from core.auth import Caller, ensure_project
from core.datasets.service import create_dataset
from core.db.migrating import upgrade
from core.db.models import Dataset, Job, Snapshot
from core.db.session import make_engine, session_factory
from core.jobs import outbox
from core.jobs.service import PlannedJob, create_jobs

PLENTY = {"cpu": 10**9, "gpu": 10**9}  # hints in the broker: none was lost


@contextmanager
def empty_database(postgres_url: str) -> Iterator[str]:
    """URL of a database without a table, which is dropped at the end."""
    name = f"test_{uuid4().hex}"
    server = make_url(postgres_url)
    plain = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def fresh_database(postgres_url: str) -> Iterator[str]:
    """URL of a migrated database that is dropped at the end."""
    with empty_database(postgres_url) as url:
        upgrade(url)
        yield url


@dataclass
class HintList:
    """A JobQueue that keeps the hints in a list, or has no broker."""

    sent: list[UUID] = field(default_factory=list)
    imports: list[UUID] = field(default_factory=list)
    devices: dict[UUID, str] = field(default_factory=dict)
    away: bool = False

    def send(self, job_id: UUID, device: str) -> None:
        if self.away:
            raise OSError("no broker")
        self.sent.append(job_id)
        self.devices[job_id] = device

    def send_import(self, import_id: UUID) -> None:
        if self.away:
            raise OSError("no broker")
        self.imports.append(import_id)


@dataclass
class JobsDatabase:
    """Jobs of one project on one frozen dataset."""

    sessions: sessionmaker[Session]
    caller: Caller
    queue: HintList
    dataset_id: UUID
    snapshot: Snapshot

    def chain(
        self, length: int = 1, *, max_attempts: int = 3, needs: UUID | None = None
    ) -> list[UUID]:
        """New jobs, each of which needs the one before."""
        planned = [PlannedJob("pretrain", {}, {}, needs if i == 0 else None) for i in range(length)]
        with self.sessions.begin() as session:
            jobs = create_jobs(
                session, self.caller, self.snapshot, planned, max_attempts=max_attempts
            )
            return [job.id for job in jobs]

    def row(self, job_id: UUID) -> Job:
        with self.sessions.begin() as session:
            return session.scalars(select(Job).where(Job.id == job_id)).one()

    def states(self, job_ids: list[UUID]) -> list[str]:
        return [self.row(job_id).state for job_id in job_ids]

    def set(self, job_id: UUID, **values: object) -> None:
        """Put values into the row, past all rules but the database's."""
        with self.sessions.begin() as session:
            session.execute(update(Job).where(Job.id == job_id).values(**values))


@contextmanager
def jobs_database(postgres_url: str) -> Iterator[JobsDatabase]:
    with fresh_database(postgres_url) as url:
        engine = make_engine(url)
        sessions = session_factory(engine)
        queue = HintList()
        outbox.install(sessions, queue)
        try:
            with sessions.begin() as session:
                caller = Caller(ensure_project(session, "tests"), frozenset({"admin"}))
                dataset = create_dataset(session, caller, name="images")
                snapshot = new_snapshot(session, dataset)
            yield JobsDatabase(sessions, caller, queue, dataset.id, snapshot)
        finally:
            engine.dispose()


def new_snapshot(session: Session, dataset: Dataset) -> Snapshot:
    """The record of an empty snapshot."""
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
    return snapshot
