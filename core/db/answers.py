"""Answers that are given again when a request comes again under its Idempotency-Key."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.db.table import Json, Table, creation_time


class KeptAnswer(Table):
    """The answer to one request of a project, recorded in the transaction of what it made."""

    __tablename__ = "kept_answers"
    __table_args__ = (
        Index(None, "created_at"),
        CheckConstraint("length(key) BETWEEN 1 AND 255", name="key_length"),
        CheckConstraint("fingerprint ~ '^[0-9a-f]{64}$'", name="fingerprint_form"),
        CheckConstraint("status BETWEEN 200 AND 299", name="status_of_success"),
    )

    project_id: Mapped[UUID] = mapped_column(
        ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    status: Mapped[int]
    headers: Mapped[Json]
    body: Mapped[bytes]
    created_at: Mapped[datetime] = creation_time()
