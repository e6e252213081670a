"""The labels and given splits of a dataset, image by image, as they can be set again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from core.db.labelling import ImageSplit
from core.db.models import Dataset, Image, ImageName, Label

FETCH_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class MarkedImage:
    """An image that has a label, a given split, or both; `file` is the first of its names."""

    image_id: UUID
    sha256: str
    file: str | None
    label: str | None
    split: str | None


def marked_images(session: Session, dataset: Dataset) -> Iterator[MarkedImage]:
    """All images of the dataset with a label or a given split, in the order they came."""
    name = select(func.min(ImageName.name)).where(ImageName.image_id == Image.id).scalar_subquery()
    statement = (
        select(Image.id, Image.sha256, name, Label.class_name, ImageSplit.split)
        .outerjoin(Label, Label.image_id == Image.id)
        .outerjoin(ImageSplit, ImageSplit.image_id == Image.id)
        .where(Image.dataset_id == dataset.id)
        .where(or_(Label.image_id.is_not(None), ImageSplit.image_id.is_not(None)))
        .order_by(Image.created_at, Image.id)
    )
    rows = session.execute(statement, execution_options={"yield_per": FETCH_ROWS})
    return (MarkedImage(*row) for row in rows)
