"""The table of what happened to jobs; a trigger on `jobs` writes it, so nobody can forget to."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKeyConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.db.table import Json, Table, creation_time


class JobEvent(Table):
    """A change of a job's state or progress.

    The ids of one job rise in the order of the commits, since the trigger draws them while it
    holds the job's row. Those of different jobs do not.
    """

    __tablename__ = "job_events"
    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "job_id"], ["jobs.project_id", "jobs.id"], ondelete="CASCADE"
        ),
        Index(None, "job_id", "id"),
        Index(None, "created_at"),
        CheckConstraint("kind IN ('state', 'progress')", name="kind_known"),
    )

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    job_id: Mapped[UUID]
    project_id: Mapped[UUID]
    kind: Mapped[str]
    body: Mapped[Json]
    created_at: Mapped[datetime] = creation_time()
