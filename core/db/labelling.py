"""The tables beside labels: who changed them, and the splits that people gave."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.db.table import Table, creation_time, primary_id


class LabelChange(Table):
    """A label that was set, changed or taken away; a class that is None was or is no label.

    The key is named, not referred to: the history stays as it was written.
    """

    __tablename__ = "label_changes"
    __table_args__ = (
        ForeignKeyConstraint(
            ["dataset_id", "image_id"], ["images.dataset_id", "images.id"], ondelete="CASCADE"
        ),
        Index(None, "dataset_id", "created_at", "id"),
        Index(None, "image_id", "created_at", "id"),
        CheckConstraint("from_class IS DISTINCT FROM to_class", name="is_a_change"),
    )

    id: Mapped[UUID] = primary_id()
    dataset_id: Mapped[UUID]
    image_id: Mapped[UUID]
    key_id: Mapped[UUID | None]
    key_name: Mapped[str]
    from_class: Mapped[str | None]
    to_class: Mapped[str | None]
    created_at: Mapped[datetime] = creation_time()


class ImageSplit(Table):
    """The split that people gave an image of a dataset, in place of the one by its content."""

    __tablename__ = "image_splits"
    __table_args__ = (
        ForeignKeyConstraint(
            ["dataset_id", "image_id"], ["images.dataset_id", "images.id"], ondelete="CASCADE"
        ),
        Index(None, "dataset_id"),
        CheckConstraint("split IN ('train', 'validation', 'test')", name="split_known"),
    )

    image_id: Mapped[UUID] = mapped_column(primary_key=True)
    dataset_id: Mapped[UUID]
    split: Mapped[str]
