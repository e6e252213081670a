"""Datasets and images as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.schemas.strict import StrictBody
from api.schemas.text import WITHOUT_NUL
from core.images.formats import FORMATS

Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), WITHOUT_NUL
]


class DatasetIn(StrictBody):
    """A new dataset."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "screws"}]})

    name: Name = Field(description="Unique in the project.")
    test_fraction: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="Share of the images that no stage ever trains on; the model's test accuracy "
        "is measured on the labelled ones among them. Decided by content, for good; "
        "images that were given a `split` with their labels have that one.",
    )
    validation_fraction: float = Field(
        default=0.0,
        ge=0,
        le=0.4,
        description="Share of the images whose labels are not trained on. With few labels leave "
        "it at 0: accuracy is then estimated by cross-validation.",
    )


class DatasetOut(BaseModel):
    """A dataset."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    test_fraction: float
    validation_fraction: float
    created_at: datetime


class DatasetDetailOut(DatasetOut):
    """A dataset with its counts."""

    image_count: int
    byte_count: int = Field(description="Of the image files as they were uploaded.")
    label_count: int
    labels_per_class: dict[str, int]


class DatasetPage(BaseModel):
    """A page of datasets."""

    items: list[DatasetOut]
    next_cursor: str | None


class ImageOut(BaseModel):
    """An image of a dataset."""

    id: UUID
    names: list[str] = Field(description="File names it was uploaded under.")
    sha256: str
    width: int
    height: int
    format: str = Field(description=f"Of the file: {', '.join(FORMATS)}.", examples=["PNG"])
    bytes: int
    label: str | None
    created_at: datetime


class ImagePage(BaseModel):
    """A page of images."""

    items: list[ImageOut]
    next_cursor: str | None
