"""What a picture of the augmentations is made from: training images, and the plan's choices."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.auth import Caller
from core.datasets.service import get_dataset
from core.datasets.snapshot import split_of
from core.db.models import Dataset, Image
from core.errors import NotEnoughImages, SpecInvalid
from core.jobs.plan.facts import DataFacts, Device
from core.jobs.plan.network import augmentation_plan, network_plan

MAX_VIEW_PIXELS = 2**23  # 32 MB for each channel while the picture is made


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviewLimits:
    """Most images, and views of each."""

    images: int
    views: int


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
        SpecInvalid: The options make no sense on this data, or the picture would be too large.
    """
    dataset = get_dataset(session, caller, dataset_id)
    facts, training = _facts(session, dataset)
    network = network_plan({"image_size": options["image_size"]}, facts, device, parent=None)
    size, count = network["image_size"], min(limits.images, len(training))
    if count * limits.views * size**2 > MAX_VIEW_PIXELS:
        raise SpecInvalid(
            f"n, views, image_size: found {count} x {limits.views} views of {size} x {size} "
            f"pixels; at most {MAX_VIEW_PIXELS:,} pixels are allowed, so ask for fewer"
        )
    return PreviewPlan(
        sha256s=tuple(training[i * len(training) // count] for i in range(count)),
        image_size=size,
        channels=network["channels"],
        **augmentation_plan(options, facts, size),
    )


def _facts(session: Session, dataset: Dataset) -> tuple[DataFacts, list[str]]:
    """What a snapshot would say of the images, and the hashes of those for training, sorted."""
    columns = (Image.sha256, Image.greyscale, Image.width, Image.height)
    statement = select(*columns).where(Image.dataset_id == dataset.id).order_by(Image.sha256)
    rows = [(row, _split(dataset, row.sha256)) for row in session.execute(statement)]
    training = [row.sha256 for row, split in rows if split == "train"]
    if not training:
        found = f"{len(rows)} images, none of them in the training split" if rows else "no images"
        raise NotEnoughImages(f"dataset_id: found {found}; upload images to see how they change")
    # As for a snapshot: what is decided does not depend on test images.
    known = [row for row, split in rows if split != "test"]
    facts = DataFacts(
        images=len(known),
        labels_per_class={},
        greyscale=all(row.greyscale for row in known),
        median_short_side=int(statistics.median(min(row.width, row.height) for row in known)),
    )
    return facts, training


def _split(dataset: Dataset, sha256: str) -> str:
    return split_of(
        sha256,
        validation_fraction=dataset.validation_fraction,
        test_fraction=dataset.test_fraction,
    )
