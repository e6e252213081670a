"""The three tasks: run one job, carry out one import, and sweep."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from uuid import UUID

from sqlalchemy.orm import Session, sessionmaker

from core import blobs
from core.config import process_settings
from core.datasets import removal
from core.db.session import make_engine, session_factory
from core.direct import orders, uploads
from core.direct.run import Work, run
from core.direct.stores import Place
from core.idempotency import forget_answers
from core.images import imports
from core.images.thumbnails import thumbnail_keys
from core.jobs import checkpoints, outbox, sweeping
from core.jobs.events import forget_events
from core.jobs.logs import forget_lines
from core.jobs.queue import IMPORTS_QUEUE, RUN_IMPORT, RUN_JOB, SWEEP, CeleryQueue
from core.storage.store import BlobStore, open_store
from core.telemetry import bound, logger
from core.webhooks.delivery import Deliverer, forget
from worker import child
from worker.celery_app import app
from worker.metrics import LEASES_EXPIRED

log = logger(__name__)
REMOVAL_SECONDS = 5.0  # of a sweep, so that what else it does is not late


@lru_cache(maxsize=1)
def _sessions() -> sessionmaker[Session]:
    settings = process_settings()
    sessions = session_factory(make_engine(settings.sqlalchemy_url))
    outbox.install(sessions, CeleryQueue(app))
    return sessions


@app.task(name=RUN_JOB)
def run_job(job_id: str) -> None:
    """Run the job whose turn it is, which the hint need not know."""
    child.run(UUID(job_id), _sessions(), process_settings())


@app.task(name=RUN_IMPORT)
def run_import(import_id: str) -> None:
    """Carry out the order to import unless somebody else does."""
    with bound(import_id=import_id):
        work = Work(sessions=_sessions(), place=_place(), stop=child.shutting_down.is_set)
        run(work, UUID(import_id))


@app.task(name=SWEEP)
def sweep() -> None:
    """Take jobs from silent workers, send lost hints again, tidy up."""
    queue, settings = CeleryQueue(app), process_settings()
    waiting, imports_waiting = queue.jobs_waiting(), queue.waiting(IMPORTS_QUEUE)
    with _sessions().begin() as session:
        expired, hinted = sweeping.sweep(
            session, hints_waiting=waiting, most_running=settings.max_running_jobs
        )
        late, ordered = orders.sweep(session, hints_waiting=imports_waiting)
        silent = imports.sweep(session, silent=_grace())
    LEASES_EXPIRED.inc(expired)
    if any((expired, hinted, late, ordered, silent)):
        hints, leases_over = hinted + ordered, expired + late
        log.info("swept", expired_leases=leases_over, hints_sent=hints, silent_imports=silent)
    with _sessions().begin() as session:
        forget_answers(session, hours=settings.idempotency_hours)
        forget(session, days=settings.webhook_days)
        checkpoints.sweep(session, keep=timedelta(hours=settings.checkpoint_hours))
        forget_events(session, hours=settings.event_hours)
        forget_lines(session, days=settings.log_days)
    _deliverer().wake()
    removed = removal.sweep(_sessions(), seconds=REMOVAL_SECONDS)
    deleted = blobs.sweep(_sessions(), _store(), grace=_grace(), made_from=thumbnail_keys)
    cleared = uploads.sweep(_sessions(), _place())
    if removed or deleted or cleared:
        log.info("swept", images_removed=removed, blobs_deleted=deleted, uploads_cleared=cleared)


@lru_cache(maxsize=1)
def _deliverer() -> Deliverer:
    return Deliverer(_sessions(), process_settings())


def _grace() -> timedelta:
    return timedelta(seconds=process_settings().blob_grace_seconds)


def _place() -> Place:
    return Place(_store(), process_settings())


@lru_cache(maxsize=1)
def _store() -> BlobStore:
    return open_store(process_settings().store_url)
