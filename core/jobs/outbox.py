"""Hints wait in the session and leave after the commit; a lost one is sent again by the sweep."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session, SessionTransaction, aliased, sessionmaker

from core.db.models import Job
from core.jobs.readiness import FIRST_COMES, is_due
from core.telemetry import logger

log = logger(__name__)
_KEY = "hints"
IMPORT = "import"  # other hints are known by the device of their job


class JobQueue(Protocol):
    """Something that can tell a worker about a job."""

    def send(self, job_id: UUID, device: str) -> None:
        """Tell a worker that has the device; raises OSError when the broker does not answer."""

    def send_import(self, import_id: UUID) -> None:
        """Tell a worker about an order to import; raises as send."""


def hint(session: Session, job_id: UUID) -> None:
    """Hint at the queued job once the transaction has committed, and note when."""
    session.execute(update(Job).where(Job.id == job_id).values(hinted_at=func.clock_timestamp()))
    enqueue(session, job_id)


def enqueue(session: Session, job_id: UUID) -> None:
    """Hint at the job once the transaction has committed."""
    device = session.scalar(select(Job.device).where(Job.id == job_id))
    _keep(session, device or "cpu", job_id)


def hint_next(session: Session, ended: UUID) -> None:
    """Hint at the job of the same project that waits for a place which this one has left.

    That is one whose hint a worker has used up while the project ran as many as it may.
    """
    ended_job = aliased(Job)
    project = select(ended_job.project_id).where(ended_job.id == ended).scalar_subquery()
    next_job = (
        select(Job.id)
        .where(Job.project_id == project, Job.id != ended, is_due(), Job.hinted_at.is_(None))
        .order_by(*FIRST_COMES)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if (job_id := session.scalar(next_job)) is not None:
        hint(session, job_id)


def enqueue_import(session: Session, import_id: UUID) -> None:
    """Hint at the order to import once the transaction has committed."""
    _keep(session, IMPORT, import_id)


def _keep(session: Session, kind: str, wanted: UUID) -> None:
    if session.in_nested_transaction():
        raise RuntimeError("hints are not sent from inside a savepoint")
    session.connection()  # begins the transaction, so that its end is seen
    session.info.setdefault(_KEY, []).append((kind, wanted))


def install(sessions: sessionmaker[Session], queue: JobQueue) -> None:
    """Bind sending and dropping to every session of the factory."""

    def publish(session: Session) -> None:
        if session.in_nested_transaction():  # the event fires for savepoints too
            return
        for kind, wanted in session.info.pop(_KEY, []):
            try:
                if kind == IMPORT:
                    queue.send_import(wanted)
                else:
                    queue.send(wanted, kind)
            except OSError as error:
                name = IMPORT if kind == IMPORT else "job"
                ids = {f"{name}_id": str(wanted)}
                log.warning(f"{name} hint not sent; the sweep will", **ids, error=error)

    def drop(session: Session, transaction: SessionTransaction) -> None:
        # The end of a savepoint decides nothing; a session that is closed is never rolled back.
        if transaction.parent is None:
            session.info.pop(_KEY, None)

    event.listen(sessions, "after_commit", publish)
    event.listen(sessions, "after_transaction_end", drop)
