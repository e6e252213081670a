"""Which checkpoint of a job lies in the blob store: recorded under the fencing token."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core import blobs
from core.db.models import Job
from core.db.scheduling import JobCheckpoint
from core.errors import LeaseLost
from core.jobs.leases import Claim
from core.jobs.states import FINISHED, JobState

PART = 500


def checkpoint_key(digest: str) -> str:
    """Where the bytes lie."""
    return f"{blobs.CHECKPOINTS}/{digest}"


def record(
    session: Session, held: Claim, *, folder: str, step: int, digest: str, size: int
) -> str | None:
    """Make this the checkpoint of a part of the job; the key of the one it replaces, marked.

    Args:
        session: The transaction.
        held: The right to write.
        folder: The part, as a path inside the job's work folder.
        step: Steps done.
        digest: SHA-256 of the stored bytes, whose key is marked.
        size: In bytes.

    Raises:
        LeaseLost: Another worker holds the job, or it has ended.
    """
    mine = select(Job.id).where(
        Job.id == held.job_id,
        Job.fencing_token == held.token,
        Job.lease_expires_at.is_not(None),
    )
    # Held to the end of the transaction: no other worker can claim the job in between.
    if session.scalar(mine.with_for_update(read=True)) is None:
        raise LeaseLost(f"job {held.job_id} is no longer held with token {held.token}")
    where = (JobCheckpoint.job_id == held.job_id, JobCheckpoint.folder == folder)
    before = session.scalar(select(JobCheckpoint.sha256).where(*where))
    values = {"token": held.token, "step": step, "sha256": digest, "byte_count": size}
    put = insert(JobCheckpoint).values(job_id=held.job_id, folder=folder, **values)
    again = {**values, "saved_at": func.clock_timestamp()}
    session.execute(put.on_conflict_do_update(index_elements=["job_id", "folder"], set_=again))
    blobs.unmark(session, [checkpoint_key(digest)])
    if before is None or before == digest:
        return None
    blobs.mark(session, [checkpoint_key(before)])
    return checkpoint_key(before)


def recorded(session: Session, job_id: UUID) -> list[JobCheckpoint]:
    """The latest checkpoint of each part of the job."""
    rows = select(JobCheckpoint).where(JobCheckpoint.job_id == job_id)
    return list(session.scalars(rows.order_by(JobCheckpoint.folder)))


def forget(session: Session, job_ids: list[UUID]) -> list[str]:
    """These jobs have no checkpoint any more; the keys of those they had, marked."""
    gone = delete(JobCheckpoint).where(JobCheckpoint.job_id.in_(job_ids))
    keys = [
        checkpoint_key(digest) for digest in session.scalars(gone.returning(JobCheckpoint.sha256))
    ]
    blobs.mark(session, keys)
    return keys


def sweep(session: Session, *, keep: timedelta) -> int:
    """Forget checkpoints that no retry will need; how many jobs had some.

    Those are a job's that ended well, whose data is gone, or that ended longer ago than `keep`.
    """
    ended = Job.state.in_(sorted(FINISHED))
    useless = or_(
        Job.state == JobState.SUCCEEDED,
        Job.snapshot_id.is_(None),
        Job.finished_at < func.clock_timestamp() - keep,
    )
    kept = select(JobCheckpoint.job_id).where(JobCheckpoint.job_id == Job.id).exists()
    # A job that is being retried right now keeps its own.
    statement = select(Job.id).where(kept, ended, useless).limit(PART)
    job_ids = list(session.scalars(statement.with_for_update(skip_locked=True)))
    if job_ids:
        forget(session, job_ids)
    return len(job_ids)
