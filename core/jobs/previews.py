"""What a picture of the augmentations is made from: training images, and the plan's choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, LargeBinary, func, literal, outerjoin, select
from sqlalchemy.orm import Session

from core.auth import Caller
from core.datasets.service import get_dataset
from core.db.labelling import ImageSplit
from core.db.models import Dataset, Image
from core.errors import NotEnoughImages, SpecInvalid
from core.jobs.plan.facts import DataFacts, Device
from core.jobs.plan.network import augmentation_plan, network_plan

MAX_VIEW_PIXELS = 2**23  # 32 MB for each channel while the picture is made
# Images of the largest size that may be uploaded: seconds of decoding.
LARGEST_IMAGES = 4
NAMED = 3  # images in a message
IMAGES = outerjoin(Image, ImageSplit, ImageSplit.image_id == Image.id)  # with their given splits
SPLIT_SALT = "fewlabels-split:"  # as in core.datasets.snapshot.split_of


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviewLimits:
    """Most images, views of each, and pixels of all images together as they were uploaded."""

    images: int
    views: int
    pixels: int


@dataclass(frozen=True, slots=True)
class _Chosen:
    sha256: str
    pixels: int


@dataclass(frozen=True, slots=True)
class PreviewPlan:
    """Images by their hash, and how a pretrain job on this dataset would see and change them."""

    sha256s: tuple[str, ...]
    image_size: int
    channels: int
    augmentation: str
    augmentation_strength: float


def plan_preview(
    session: Session,
    caller: Caller,
    dataset_id: UUID,
    options: Mapping[str, Any],
    *,
    limits: PreviewLimits,
    device: Device,
) -> PreviewPlan:
    """Choose images and resolve `auto` as a pretrain job would; nothing is frozen.

    Args:
        session: A transaction.
        caller: Who asks.
        dataset_id: The caller's dataset.
        options: `image_size`, `augmentation` and `augmentation_strength` as for a job.
        limits: Images are evenly spread over the training images in the order of their hashes,
            so the same dataset gives the same ones.
        device: Where the job would run.

    Raises:
        DatasetNotFound: It is not the caller's.
        NotEnoughImages: The dataset has no image that is trained on.
        SpecInvalid: The options make no sense on this data, the picture would be too large, or
            the images are too large to be read for one.
    """
    dataset = get_dataset(session, caller, dataset_id)
    facts, training = _facts(session, dataset)
    network = network_plan({"image_size": options["image_size"]}, facts, device, parent=None)
    size, count = network["image_size"], min(limits.images, training)
    if count * limits.views * size**2 > MAX_VIEW_PIXELS:
        raise SpecInvalid(
            f"n, views, image_size: found {count} x {limits.views} views of {size} x {size} "
            f"pixels; at most {MAX_VIEW_PIXELS:,} pixels are allowed, so ask for fewer"
        )
    chosen = _spread(session, dataset, training, count)
    _refuse_slow(chosen, limits.pixels)
    return PreviewPlan(
        sha256s=tuple(image.sha256 for image in chosen),
        image_size=size,
        channels=network["channels"],
        **augmentation_plan(options, facts, size),
    )


def _refuse_slow(chosen: Sequence[_Chosen], most_pixels: int) -> None:
    """Raise SpecInvalid where decoding the images would take too long."""
    found = sum(image.pixels for image in chosen)
    if found <= most_pixels:
        return
    largest = sorted(chosen, key=lambda image: image.pixels, reverse=True)[:NAMED]
    named = ", ".join(f"{image.sha256} ({image.pixels:,})" for image in largest)
    raise SpecInvalid(
        f"n: found {len(chosen)} images of {found:,} pixels together, the largest are {named}; at "
        f"most {most_pixels:,} pixels are read for a picture, so ask for fewer images"
    )


def _facts(session: Session, dataset: Dataset) -> tuple[DataFacts, int]:
    """What a snapshot would say of the images, and how many of them are for training."""
    # As for a snapshot: what is decided does not depend on test images.
    known = func.coalesce(ImageSplit.split != "test", _from(dataset.test_fraction))
    short_side = func.least(Image.width, Image.height)
    statement = select(
        func.count().label("images"),
        func.count().filter(known).label("known"),
        func.count().filter(_for_training(dataset)).label("training"),
        func.bool_and(Image.greyscale).filter(known).label("greyscale"),
        func.percentile_cont(0.5).within_group(short_side).filter(known).label("short_side"),
    ).select_from(IMAGES)
    row = session.execute(statement.where(Image.dataset_id == dataset.id)).one()
    if not row.training:
        found = f"{row.images} images, none of them in the training split"
        raise NotEnoughImages(
            f"dataset_id: found {found if row.images else 'no images'}; "
            "upload images to see how they change"
        )
    facts = DataFacts(
        images=row.known,
        labels_per_class={},
        greyscale=row.greyscale,
        median_short_side=int(row.short_side),
    )
    return facts, row.training


def _spread(session: Session, dataset: Dataset, training: int, count: int) -> list[_Chosen]:
    """So many training images, evenly spread over all of them in the order of their hashes."""
    place = func.row_number().over(order_by=Image.sha256) - 1
    placed = (
        select(Image.sha256, Image.width, Image.height, place.label("place"))
        .select_from(IMAGES)
        .where(Image.dataset_id == dataset.id, _for_training(dataset))
        .subquery()
    )
    wanted = [i * training // count for i in range(count)]
    statement = select(placed).where(placed.c.place.in_(wanted)).order_by(placed.c.place)
    return [_Chosen(row.sha256, row.width * row.height) for row in session.execute(statement)]


def _for_training(dataset: Dataset) -> ColumnElement[bool]:
    by_content = _from(dataset.test_fraction + dataset.validation_fraction)
    return func.coalesce(ImageSplit.split == "train", by_content)


def _from(fraction: float) -> ColumnElement[bool]:
    """Whether `split_of` places an image at this fraction or above, in SQL."""
    hashed = func.sha256(func.convert_to(literal(SPLIT_SALT) + Image.sha256, "UTF8"))
    return func.substring(hashed, 1, 8) >= literal(_least(fraction).to_bytes(8), LargeBinary)


def _least(fraction: float) -> int:
    """The smallest of the 64-bit numbers whose position is not below the fraction.

    Not simply a product: the division that gives the position rounds.
    """
    low, high = 0, 2**64 - 1
    while low < high:
        middle = (low + high) // 2
        if middle / 2**64 < fraction:
            low = middle + 1
        else:
            high = middle
    return low
