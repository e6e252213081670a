"""Datasets: create, find, count, delete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core import blobs
from core.auth import Caller
from core.datasets import removal
from core.db.models import Dataset, Image, ImageName, Job, Label
from core.db.paging import Page, fetch_page
from core.db.unfinished import require_unneeded
from core.errors import DatasetNotFound, ImageNotFound, NameTaken
from core.images.recording import image_key


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """A dataset with its counts."""

    id: UUID
    name: str
    test_fraction: float
    validation_fraction: float
    created_at: datetime
    image_count: int
    byte_count: int
    label_count: int
    labels_per_class: dict[str, int]


def create_dataset(
    session: Session,
    caller: Caller,
    *,
    name: str,
    test_fraction: float = 0.0,
    validation_fraction: float = 0.0,
) -> Dataset:
    """An empty dataset.

    Raises:
        NameTaken: The project has one of this name.
    """
    values = {
        "project_id": caller.project_id,
        "name": name,
        "test_fraction": test_fraction,
        "validation_fraction": validation_fraction,
    }
    statement = insert(Dataset).values(values).on_conflict_do_nothing().returning(Dataset)
    dataset = session.scalars(statement).one_or_none()
    if dataset is None:
        raise NameTaken(f"name: a dataset called {name!r} exists already")
    return dataset


def get_dataset(
    session: Session,
    caller: Caller,
    dataset_id: UUID,
    *,
    lock: bool = False,
    deleting: bool = False,
) -> Dataset:
    """The caller's dataset; `lock` holds off its deletion until the transaction ends.

    `deleting` waits for those who hold it so, and for others who delete it.

    Raises:
        DatasetNotFound: There is none, or it is another project's.
    """
    statement = select(Dataset).where(
        Dataset.id == dataset_id, Dataset.project_id == caller.project_id
    )
    if lock:
        statement = statement.with_for_update(read=True, key_share=True)
    if deleting:
        # Counts that another transaction changed meanwhile are read anew.
        statement = statement.with_for_update().execution_options(populate_existing=True)
    dataset = session.scalars(statement).one_or_none()
    if dataset is None:
        raise DatasetNotFound(f"dataset_id: no dataset has the id {dataset_id}")
    return dataset


def summarise(session: Session, dataset: Dataset) -> DatasetSummary:
    """The dataset with counts of images and labels."""
    classes = session.execute(
        select(Label.class_name, func.count())
        .where(Label.dataset_id == dataset.id)
        .group_by(Label.class_name)
        .order_by(Label.class_name)
    ).all()
    per_class = {str(name): int(count) for name, count in classes}
    return DatasetSummary(
        id=dataset.id,
        name=dataset.name,
        test_fraction=dataset.test_fraction,
        validation_fraction=dataset.validation_fraction,
        created_at=dataset.created_at,
        image_count=dataset.image_count,
        byte_count=dataset.byte_count,
        label_count=sum(per_class.values()),
        labels_per_class=per_class,
    )


def list_datasets(
    session: Session, caller: Caller, *, name: str | None, cursor: str | None, limit: int
) -> Page[Dataset]:
    """The caller's datasets, newest first."""
    statement = select(Dataset).where(Dataset.project_id == caller.project_id)
    if name is not None:
        statement = statement.where(Dataset.name == name)
    return fetch_page(session, statement, Dataset, cursor=cursor, limit=limit)


def delete_dataset(session: Session, caller: Caller, dataset_id: UUID) -> None:
    """Remove the dataset, its images, labels and snapshots; jobs and models stay as history.

    Nobody finds it from now on and its name is free; the sweep removes its rows, and a while
    later the bytes of images that no other dataset has.

    Raises:
        DatasetNotFound: There is none, or it is another project's.
        InUse: An unfinished job needs it.
    """
    dataset = get_dataset(session, caller, dataset_id, deleting=True)
    _refuse_while_needed(session, dataset)
    removal.take_away(session, dataset)


def delete_image(session: Session, caller: Caller, image_id: UUID) -> None:
    """Remove an image with its names and its label; snapshots and models keep what they had.

    Raises:
        ImageNotFound: There is none, or it is another project's.
        InUse: An unfinished job needs the dataset as it is.
    """
    image = get_image(session, caller, image_id)
    dataset = get_dataset(session, caller, image.dataset_id, deleting=True)
    _refuse_while_needed(session, dataset)
    gone = delete(Image).where(Image.id == image_id).returning(Image.byte_count)
    byte_count = session.scalar(gone)
    if byte_count is None:  # somebody else was first
        raise ImageNotFound(f"image_id: no image has the id {image_id}")
    dataset.image_count -= 1
    dataset.byte_count -= byte_count
    blobs.mark(session, [image_key(image.sha256)])


def _refuse_while_needed(session: Session, dataset: Dataset) -> None:
    require_unneeded(session, Job.dataset_id == dataset.id, "dataset_id: this dataset")


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image with its names and label."""

    image: Image
    names: list[str]
    label: str | None


def list_images(
    session: Session,
    dataset: Dataset,
    *,
    name: str | None,
    labelled: bool | None,
    cursor: str | None,
    limit: int,
) -> tuple[list[ListedImage], str | None]:
    """A page of the dataset's images, newest first, and the next cursor."""
    statement = select(Image).where(Image.dataset_id == dataset.id)
    if name is not None:
        named = select(ImageName.image_id).where(
            ImageName.dataset_id == dataset.id, ImageName.name == name
        )
        statement = statement.where(Image.id.in_(named))
    if labelled is not None:
        having = select(Label.image_id).where(Label.image_id == Image.id).exists()
        statement = statement.where(having if labelled else ~having)
    page = fetch_page(session, statement, Image, cursor=cursor, limit=limit)
    ids = [image.id for image in page.items]
    names: dict[UUID, list[str]] = {image_id: [] for image_id in ids}
    for entry in session.scalars(
        select(ImageName).where(ImageName.image_id.in_(ids)).order_by(ImageName.name)
    ):
        names[entry.image_id].append(entry.name)
    labels = {
        label.image_id: label.class_name
        for label in session.scalars(select(Label).where(Label.image_id.in_(ids)))
    }
    items = [ListedImage(image, names[image.id], labels.get(image.id)) for image in page.items]
    return items, page.next_cursor


def get_image(session: Session, caller: Caller, image_id: UUID) -> Image:
    """The caller's image.

    Raises:
        ImageNotFound: There is none, or it is another project's.
    """
    image = session.scalars(
        select(Image)
        .join(Dataset, Dataset.id == Image.dataset_id)
        .where(Image.id == image_id, Dataset.project_id == caller.project_id)
    ).one_or_none()
    if image is None:
        raise ImageNotFound(f"image_id: no image has the id {image_id}")
    return image


def contents_of(session: Session, caller: Caller, image_ids: Sequence[UUID]) -> dict[UUID, str]:
    """The sha256 of those of the images that are the caller's."""
    rows = session.execute(
        select(Image.id, Image.sha256)
        .join(Dataset, Dataset.id == Image.dataset_id)
        .where(Image.id.in_(image_ids), Dataset.project_id == caller.project_id)
    )
    return {row.id: row.sha256 for row in rows}
