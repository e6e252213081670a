"""When and where a job may run, and its checkpoints that outlive the machine it ran on."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from core.db.table import Table, creation_time

MOST_PRIORITY = 100


class Scheduled:
    """The columns of a job that a claim looks at, and which of its runs is the present one."""

    priority: Mapped[int] = mapped_column(server_default="0")
    device: Mapped[str] = mapped_column(server_default="cpu")
    not_before: Mapped[datetime | None]
    hinted_at: Mapped[datetime | None]  # None: no hint is under way
    attempt: Mapped[int] = mapped_column(server_default="0")
    max_attempts: Mapped[int]
    # Raised by a retry from the beginning: checkpoints of an earlier run are not resumed then.
    beginning: Mapped[int] = mapped_column(server_default="0")


def scheduling_rules() -> tuple[CheckConstraint | Index, ...]:
    """The constraints, and the index that has queued jobs in the order of their claims."""
    order = ("device", text("priority DESC"), "created_at", "id")
    return (
        Index("ix_jobs_queue", *order, postgresql_where="state = 'queued'"),
        CheckConstraint("attempt BETWEEN 0 AND max_attempts", name="attempts"),
        CheckConstraint(
            f"priority BETWEEN -{MOST_PRIORITY} AND {MOST_PRIORITY}", name="priority_bounded"
        ),
        CheckConstraint("device IN ('cpu', 'gpu')", name="device_known"),
    )


class JobCheckpoint(Table):
    """The latest checkpoint of one part of a job's training; its bytes lie in the blob store."""

    __tablename__ = "job_checkpoints"
    __table_args__ = (
        CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256_form"),
        CheckConstraint("step >= 0 AND byte_count > 0", name="sizes"),
    )

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    folder: Mapped[str] = mapped_column(primary_key=True)
    token: Mapped[int] = mapped_column(BigInteger)
    step: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    byte_count: Mapped[int] = mapped_column(BigInteger)
    saved_at: Mapped[datetime] = creation_time()
