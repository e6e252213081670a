"""The two tasks: run one job, and sweep."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from uuid import UUID

from sqlalchemy.orm import Session, sessionmaker

from core import blobs
from core.config import process_settings
from core.db.session import make_engine, session_factory
from core.idempotency import forget_answers
from core.images import imports
from core.images.thumbnails import thumbnail_keys
from core.jobs import leases, outbox
from core.jobs.queue import RUN_JOB, SWEEP, CeleryQueue
from core.storage.store import BlobStore, open_store
from core.telemetry import bound, logger
from worker import child
from worker.celery_app import app

log = logger(__name__)


@lru_cache(maxsize=1)
def _sessions() -> sessionmaker[Session]:
    settings = process_settings()
    sessions = session_factory(make_engine(settings.sqlalchemy_url))
    outbox.install(sessions, CeleryQueue(app))
    return sessions


@app.task(name=RUN_JOB)
def run_job(job_id: str) -> None:
    """Run the job unless somebody else does."""
    with bound(job_id=job_id):
        child.run(UUID(job_id), _sessions(), process_settings())


@app.task(name=SWEEP)
def sweep() -> None:
    """Take jobs from silent workers, send lost hints again, tidy up."""
    waiting = CeleryQueue(app).waiting()
    with _sessions().begin() as session:
        expired, hinted = leases.sweep(session, hints_waiting=waiting)
        silent = imports.sweep(session, silent=_grace())
    if expired or hinted or silent:
        log.info("swept", expired_leases=expired, hints_sent=hinted, silent_imports=silent)
    with _sessions().begin() as session:
        forget_answers(session, hours=process_settings().idempotency_hours)
    deleted = blobs.sweep(_sessions(), _store(), grace=_grace(), made_from=thumbnail_keys)
    if deleted:
        log.info("swept", blobs_deleted=deleted)


def _grace() -> timedelta:
    return timedelta(seconds=process_settings().blob_grace_seconds)


@lru_cache(maxsize=1)
def _store() -> BlobStore:
    return open_store(process_settings().store_url)
