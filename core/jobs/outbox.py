"""Hints wait in the session and leave after the commit; a lost one is sent again by the sweep."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from sqlalchemy import event, func, update
from sqlalchemy.orm import Session, SessionTransaction, sessionmaker

from core.db.models import Job
from core.telemetry import logger

log = logger(__name__)
_KEY = "hints"


class JobQueue(Protocol):
    """Something that can tell a worker about a job."""

    def send(self, job_id: UUID) -> None:
        """Tell a worker; raises OSError when the broker does not answer."""

    def send_import(self, import_id: UUID) -> None:
        """Tell a worker about an order to import; raises as send."""


def hint(session: Session, job_id: UUID) -> None:
    """Hint at the queued job once the transaction has committed, and note when."""
    session.execute(update(Job).where(Job.id == job_id).values(hinted_at=func.clock_timestamp()))
    enqueue(session, job_id)


def enqueue(session: Session, job_id: UUID) -> None:
    """Hint at the job once the transaction has committed."""
    _keep(session, "job", job_id)


def enqueue_import(session: Session, import_id: UUID) -> None:
    """Hint at the order to import once the transaction has committed."""
    _keep(session, "import", import_id)


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
                if kind == "job":
                    queue.send(wanted)
                else:
                    queue.send_import(wanted)
            except OSError as error:
                ids = {f"{kind}_id": str(wanted)}
                log.warning(f"{kind} hint not sent; the sweep will", **ids, error=error)

    def drop(session: Session, transaction: SessionTransaction) -> None:
        # The end of a savepoint decides nothing; a session that is closed is never rolled back.
        if transaction.parent is None:
            session.info.pop(_KEY, None)

    event.listen(sessions, "after_commit", publish)
    event.listen(sessions, "after_transaction_end", drop)
