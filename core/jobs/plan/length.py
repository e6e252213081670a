"""How long a stage trains: epochs and steps, or minutes."""

from __future__ import annotations

import math
from typing import Literal

from core.errors import NotEnoughImages, SpecInvalid
from core.jobs.plan.facts import DataFacts, Device, Plan
from core.jobs.plan.options import Options, choose, is_given

Training = Literal["pretrain", "distill", "scratch", "full"]
MIN_BATCH = 128
# Steps, not epochs, decide how much is learnt. The CPU's figures for up to 2,000 images were
# measured (docs/benchmarks.md); from there they grow with the square root of the images.
STEPS: dict[Training, int] = {"pretrain": 500, "distill": 600, "scratch": 500, "full": 300}
MEASURED_IMAGES = 2_000
MAX_GROWTH = 4.0
CUDA_EPOCHS = 200
CUDA_MAX_STEPS = 100_000
WARMUP_SHARE = 0.1


def length_plan(
    options: Options,
    training: Training,
    *,
    images: int,
    batch: int,
    device: Device,
    longest_warmup: float,
) -> Plan:
    """Epochs, steps and warm-up; under a budget the first two are None until it runs.

    Raises:
        SpecInvalid: Epochs and a budget were asked for, or a warm-up longer than the training.
    """
    minutes = choose(options, "budget_minutes", None)
    steps_per_epoch = max(1, images // batch)
    if minutes is not None:
        if is_given(options, "epochs"):
            raise SpecInvalid(
                f"epochs and budget_minutes: found {options['epochs']} and {minutes:g}; each says "
                "how long to train, leave one of them out"
            )
        warmup = choose(options, "warmup_epochs", longest_warmup)
        return _plan(None, None, minutes, warmup)
    epochs = choose(options, "epochs", _epochs(training, images, steps_per_epoch, device))
    warmup = choose(options, "warmup_epochs", min(longest_warmup, epochs * WARMUP_SHARE))
    if warmup > epochs:
        raise SpecInvalid(
            f"warmup_epochs: found {warmup:g}, the job trains {epochs} epochs; "
            f"at most {epochs} is allowed"
        )
    return _plan(epochs, epochs * steps_per_epoch, None, warmup)


def batch_of_all(options: Options, data: DataFacts, *, automatic: int | None = None) -> int:
    """Batch size of a stage that trains on all images; `automatic` in place of the usual "auto".

    Raises:
        NotEnoughImages: Fewer images than a batch.
    """
    images, asked = data.images, choose(options, "batch_size", None)
    if asked is None and images < MIN_BATCH:
        raise NotEnoughImages(
            f"dataset_id: found {images} images to train on, at least {MIN_BATCH} are needed, "
            "since the others in a batch are what an image is told apart from; add images, or "
            "set batch_size (at most the number of images) to train on so few anyway"
        )
    if asked is not None and asked > images:
        raise NotEnoughImages(
            f"batch_size: found {asked}, the dataset has {images} images to train on; "
            f"at most {images} is allowed"
        )
    # Many steps of a small batch learn more than few of a large one when data is scarce.
    return int(asked or automatic or (128 if images < 5_000 else 256))


def _plan(epochs: int | None, steps: int | None, minutes: float | None, warmup: float) -> Plan:
    return {
        "epochs": epochs,
        "budget_minutes": minutes,
        "steps": steps,
        "warmup_epochs": float(warmup),
    }


def _epochs(training: Training, images: int, steps_per_epoch: int, device: Device) -> int:
    if device == "cuda":
        return max(1, min(CUDA_EPOCHS, CUDA_MAX_STEPS // steps_per_epoch))
    growth = min(MAX_GROWTH, max(1.0, math.sqrt(images / MEASURED_IMAGES)))
    return math.ceil(STEPS[training] * growth / steps_per_epoch)
