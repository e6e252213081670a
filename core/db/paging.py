"""Keyset pages: stable under inserts, as fast on the last page as on the first."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar
from uuid import UUID

from sqlalchemy import Select, tuple_
from sqlalchemy.orm import Session

from core.db.imports import Import
from core.db.labelling import LabelChange
from core.db.models import Dataset, Image, Job, Model
from core.db.webhooks import Webhook, WebhookDelivery
from core.errors import RequestInvalid

RowT = TypeVar("RowT", Dataset, Image, Import, Job, LabelChange, Model, Webhook, WebhookDelivery)


@dataclass(frozen=True, slots=True)
class Page(Generic[RowT]):
    """Rows, newest first, and the cursor of the next page (None on the last)."""

    items: list[RowT]
    next_cursor: str | None


def encode_cursor(created_at: datetime, row_id: UUID) -> str:
    """An opaque position in a listing."""
    return base64.urlsafe_b64encode(f"{created_at.isoformat()}|{row_id}".encode()).decode()


def decode_cursor(cursor: str) -> tuple[datetime, UUID]:
    """The position that `encode_cursor` wrote.

    Raises:
        RequestInvalid: It is none of ours.
    """
    try:
        moment, _, row_id = base64.urlsafe_b64decode(cursor.encode()).decode().partition("|")
        # Postgres does not take every offset from UTC that Python does.
        return datetime.fromisoformat(moment).astimezone(UTC), UUID(row_id)
    except (ValueError, OverflowError, binascii.Error):
        raise RequestInvalid(
            f"cursor: found {cursor[:80]!r}; pass the next_cursor of the previous page unchanged"
        ) from None


def fetch_page(
    session: Session,
    statement: Select[RowT],
    table: type[RowT],
    *,
    cursor: str | None,
    limit: int,
) -> Page[RowT]:
    """The page of `statement` after `cursor`, newest rows first."""
    position = tuple_(table.created_at, table.id)
    if cursor is not None:
        statement = statement.where(position < tuple_(*decode_cursor(cursor)))
    ordered = statement.order_by(table.created_at.desc(), table.id.desc())
    rows = list(session.scalars(ordered.limit(limit + 1)))
    if len(rows) <= limit:
        return Page(rows, None)
    last = rows[limit - 1]
    return Page(rows[:limit], encode_cursor(last.created_at, last.id))
