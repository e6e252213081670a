"""The tables of webhooks: who wants to be told what, and what was told."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.db.table import Json, Table, creation_time, primary_id


class Webhook(Table):
    """An address that is told about a project's jobs."""

    __tablename__ = "webhooks"
    __table_args__ = (
        Index(None, "project_id", "created_at", "id"),
        CheckConstraint("cardinality(events) > 0", name="events_some"),
    )

    id: Mapped[UUID] = primary_id()
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    url: Mapped[str]
    events: Mapped[list[str]]
    secret: Mapped[str]  # as it is: a digest of it cannot sign
    created_at: Mapped[datetime] = creation_time()


class WebhookDelivery(Table):
    """One message to one address. The database writes it with the state that it tells of."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(None, "webhook_id", "created_at", "id"),
        Index("ix_webhook_deliveries_due", "next_at", postgresql_where="state = 'pending'"),
        CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="state_known"),
        CheckConstraint("attempt >= 0", name="attempt_counts"),
    )

    id: Mapped[UUID] = primary_id()
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    event: Mapped[str]
    body: Mapped[Json]
    state: Mapped[str] = mapped_column(server_default="pending")
    attempt: Mapped[int] = mapped_column(server_default="0")
    next_at: Mapped[datetime] = creation_time()  # also how long a sender has it for itself
    status: Mapped[int | None]  # of the last answer
    error: Mapped[str | None]
    created_at: Mapped[datetime] = creation_time()
    finished_at: Mapped[datetime | None]
