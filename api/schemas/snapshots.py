"""Snapshots as JSON."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.labels import Split


class SplitCountsOut(BaseModel):
    """What a split has."""

    images: int
    labels: int


class SnapshotOut(BaseModel):
    """A dataset as jobs froze it; jobs on unchanged data share one."""

    id: UUID
    dataset_id: UUID
    digest: str = Field(description="SHA-256 of the list of images with their labels and splits.")
    image_count: int
    label_count: int
    class_names: list[str]
    splits: dict[Split, SplitCountsOut]
    created_at: datetime


class SnapshotItemOut(BaseModel):
    """An image of a snapshot."""

    model_config = ConfigDict(from_attributes=True)

    sha256: str
    label: str | None
    split: Split


class SnapshotItemPage(BaseModel):
    """A page of images."""

    items: list[SnapshotItemOut]
    next_cursor: str | None
