"""The one place where `auto` becomes a value, from the data and the device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.config import Settings
from core.db.models import Snapshot
from core.errors import NotEnoughImages, NotEnoughLabels, SpecInvalid

Device = Literal["cpu", "cuda"]
Plan = dict[str, Any]

MIN_BATCH = 128
IMAGE_SIZES = {"cpu": (16, 32, 64), "cuda": (16, 32, 64, 96, 128, 160, 224)}
# Steps, not epochs, decide how much is learnt; the ceiling keeps tiny datasets from being
# repeated for ever. Measured by benchmarks/digits_label_efficiency.py on the CPU.
PRETRAIN_STEPS = {"cpu": 1_500, "cuda": 40_000}
DISTILL_STEPS = {"cpu": 800, "cuda": 20_000}
SCRATCH_STEPS = {"cpu": 600, "cuda": 5_000}
MAX_EPOCHS = 1_000
SMALLER = {
    "resnet10_tiny": "resnet10_tiny",
    "resnet10": "resnet10_tiny",
    "resnet18": "resnet10",
    "resnet34": "resnet18",
    "resnet50": "resnet18",
    "mobilenet_v3_small": "resnet10_tiny",
}


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What the plan needs to know of a snapshot."""

    images: int
    labels_per_class: Mapping[str, int]
    greyscale: bool
    median_short_side: int

    @property
    def labels(self) -> int:
        """Labelled images that may be trained on."""
        return sum(self.labels_per_class.values())


@dataclass(frozen=True, slots=True)
class Parent:
    """The model, made or still to be made, that a stage starts from."""

    kind: Literal["encoder", "classifier"]
    encoder: str
    image_size: int
    channels: int


def facts_of(snapshot: Snapshot) -> DataFacts:
    """The facts of a frozen dataset; images of the test split do not count."""
    facts = snapshot.facts
    counts = facts["images"]
    return DataFacts(
        images=counts.get("train", 0) + counts.get("validation", 0),
        labels_per_class=facts["train_labels_per_class"],
        greyscale=facts["greyscale"],
        median_short_side=facts["median_short_side"],
    )


def planning_device(settings: Settings) -> Device:
    """Where the workers will run; `auto` believes in CUDA when this machine has its driver."""
    if settings.device == "auto":
        return "cuda" if Path("/dev/nvidiactl").exists() else "cpu"
    return settings.device


def plan_pretrain(options: Mapping[str, Any], data: DataFacts, device: Device) -> Plan:
    """Resolve a pre-training job.

    Raises:
        NotEnoughImages: Fewer images than a batch.
    """
    batch = _batch_size(options, data.images)
    size, channels = _input(options, data, device)
    steps_per_epoch = max(1, data.images // batch)
    epochs = _or(options, "epochs", _epochs(PRETRAIN_STEPS[device], steps_per_epoch))
    return {
        "stage": "pretrain",
        "device": device,
        "images": data.images,
        "encoder": _or(options, "encoder", _encoder(size, device)),
        "image_size": size,
        "channels": channels,
        "views": options.get("views", 2),
        "batch_size": batch,
        "epochs": epochs,
        "steps": epochs * steps_per_epoch,
        "temperature": _or(options, "temperature", 0.2),
        "optimizer": _or(options, "optimizer", "adamw" if device == "cpu" else "lars"),
        "learning_rate": _or(options, "learning_rate", _pretrain_rate(options, batch, device)),
        "weight_decay": _or(options, "weight_decay", 1e-4),
        "warmup_epochs": max(1.0, round(0.05 * epochs, 1)),
        "augmentation": _augmentation(options, data, size),
        "seed": options.get("seed", 0),
    }


def plan_finetune(
    options: Mapping[str, Any], data: DataFacts, device: Device, *, parent: Parent | None
) -> Plan:
    """Resolve a finetuning job; without a parent it trains from random weights.

    Raises:
        NotEnoughLabels: Fewer than two classes have labels.
        SpecInvalid: Only a head is to be trained, on an encoder with random weights.
    """
    _need_classes(data)
    train = _or(options, "train", "full" if parent is None else "head")
    if parent is None and train == "head":
        raise SpecInvalid(
            "train: found 'head' without model_id or needs; a head on random weights learns "
            "nothing, 'full' trains the whole network from scratch"
        )
    size, channels = _input(options, data, device) if parent is None else _inherited(parent)
    encoder = _or(options, "encoder", _encoder(size, device)) if parent is None else parent.encoder
    batch = min(_or(options, "batch_size", 64), data.labels)
    steps_per_epoch = max(1, data.labels // batch)
    return {
        "stage": "finetune",
        "device": device,
        "images": data.labels,
        "classes": len(data.labels_per_class),
        "encoder": encoder,
        "image_size": size,
        "channels": channels,
        "from_scratch": parent is None,
        "train": train,
        "batch_size": batch,
        "epochs": _or(options, "epochs", _epochs(SCRATCH_STEPS[device], steps_per_epoch)),
        "learning_rate": _or(options, "learning_rate", 3e-3 if parent is None else 1e-3),
        "weight_decay": _or(options, "weight_decay", 1e-4),
        "augmentation": _augmentation(options, data, size),
        "seed": options.get("seed", 0),
    }


def plan_distill(
    options: Mapping[str, Any], data: DataFacts, device: Device, *, parent: Parent
) -> Plan:
    """Resolve a distillation job.

    Raises:
        NotEnoughImages: Fewer images than a batch.
    """
    batch = _batch_size(options, data.images)
    size, channels = _inherited(parent)
    student = _or(options, "student", SMALLER.get(parent.encoder, parent.encoder))
    steps_per_epoch = max(1, data.images // batch)
    epochs = _or(options, "epochs", _epochs(DISTILL_STEPS[device], steps_per_epoch))
    return {
        "stage": "distill",
        "device": device,
        "images": data.images,
        "encoder": parent.encoder if student == "same" else student,
        "image_size": size,
        "channels": channels,
        "batch_size": batch,
        "epochs": epochs,
        "steps": epochs * steps_per_epoch,
        "temperature": _or(options, "temperature", 1.0),
        "optimizer": _or(options, "optimizer", "adamw"),
        "learning_rate": _or(options, "learning_rate", 3e-3),
        "weight_decay": _or(options, "weight_decay", 1e-4),
        "warmup_epochs": max(1.0, round(0.05 * epochs, 1)),
        "augmentation": _augmentation(options, data, size),
        "seed": options.get("seed", 0),
    }


def parent_of(plan: Plan) -> Parent:
    """What a planned job will leave behind."""
    kind: Literal["encoder", "classifier"] = (
        "encoder" if plan["stage"] == "pretrain" else "classifier"
    )
    return Parent(kind, plan["encoder"], plan["image_size"], plan["channels"])


def _or(options: Mapping[str, Any], name: str, automatic: Any) -> Any:
    given = options.get(name, "auto")
    return automatic if given in ("auto", None) else given


def _batch_size(options: Mapping[str, Any], images: int) -> int:
    asked = _or(options, "batch_size", None)
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
    if asked is not None:
        return int(asked)
    # Many steps of a small batch learn more than few of a large one when data is scarce.
    return 128 if images < 5_000 else 256


def _input(options: Mapping[str, Any], data: DataFacts, device: Device) -> tuple[int, int]:
    sizes = IMAGE_SIZES[device]
    fitting = [size for size in sizes if size <= max(16, data.median_short_side * 2)]
    wanted = [size for size in fitting if size >= data.median_short_side]
    size = _or(options, "image_size", (wanted or fitting[-1:])[0])
    return int(size), 1 if data.greyscale else 3


def _inherited(parent: Parent) -> tuple[int, int]:
    return parent.image_size, parent.channels


def _encoder(image_size: int, device: Device) -> str:
    if device == "cpu":
        return "resnet10"
    return "resnet18" if image_size <= 64 else "resnet50"


def _epochs(steps: int, steps_per_epoch: int) -> int:
    return min(MAX_EPOCHS, max(1, math.ceil(steps / steps_per_epoch)))


def _pretrain_rate(options: Mapping[str, Any], batch: int, device: Device) -> float:
    optimizer = _or(options, "optimizer", "adamw" if device == "cpu" else "lars")
    if optimizer == "adamw":
        return 2e-3
    if optimizer == "sgd":
        return 0.03 * batch / 256
    return round(0.075 * math.sqrt(batch), 4)  # arXiv 2002.05709, table B.1


def _augmentation(options: Mapping[str, Any], data: DataFacts, size: int) -> str:
    coloured = "small" if size <= 64 else "photo"
    automatic = "greyscale" if data.greyscale else coloured
    return str(_or(options, "augmentation", automatic))


def _need_classes(data: DataFacts) -> None:
    classes = len(data.labels_per_class)
    if classes < 2:
        found = "no labels" if classes == 0 else f"labels of one class ({data.labels})"
        raise NotEnoughLabels(
            f"dataset_id: found {found} outside the test split; at least two classes need labels"
        )
