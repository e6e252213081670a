"""The one place where `auto` becomes a value, from the data and the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.config import Settings
from core.db.models import Snapshot
from core.errors import NotEnoughImages, NotEnoughLabels, SpecInvalid

Device = Literal["cpu", "cuda"]
Plan = dict[str, Any]

MIN_BATCH = 128
MIN_IMAGE_SIZE = 8
MAX_IMAGE_SIZE = {"cpu": 64, "cuda": 224}
SMALL_GREY = 32  # pixels: digits, letters, stamps rather than scenes
SMALL_COLOUR = 64
# Steps, not epochs, decide how much is learnt. The CPU's figures for up to 2,000 images were
# measured (docs/benchmarks.md); from there they grow with the square root of the images.
STEPS = {"pretrain": 500, "distill": 600, "scratch": 500, "full": 100}
MEASURED_IMAGES = 2_000
MAX_GROWTH = 4.0
CUDA_EPOCHS = 200
CUDA_MAX_STEPS = 100_000
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
    classes: Sequence[str] = ()

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
        classes=snapshot.class_names,
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
    optimizer = _or(options, "optimizer", "adamw" if device == "cpu" else "lars")
    epochs = _or(options, "epochs", _epochs("pretrain", data.images, steps_per_epoch, device))
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
        "temperature": _or(options, "temperature", _temperature(data, size)),
        "optimizer": optimizer,
        "learning_rate": _or(options, "learning_rate", _pretrain_rate(optimizer, batch)),
        "weight_decay": _or(options, "weight_decay", 1e-4),
        "warmup_epochs": min(10.0 if optimizer == "lars" else 2.0, epochs / 10),
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
    _no_contradiction(options, parent)
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
        "epochs": _or(options, "epochs", _supervised_epochs(parent, data.labels, steps_per_epoch)),
        "learning_rate": _or(options, "learning_rate", 3e-3 if parent is None else 3e-4),
        "weight_decay": _or(options, "weight_decay", 1e-2),
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
    epochs = _or(options, "epochs", _epochs("distill", data.images, steps_per_epoch, device))
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
        "warmup_epochs": min(2.0, epochs / 10),
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
    # The images' own size, as a multiple of what the strides divide by: enlarging adds nothing.
    native = (data.median_short_side + 4) // 8 * 8
    automatic = min(MAX_IMAGE_SIZE[device], max(MIN_IMAGE_SIZE, native))
    size = _or(options, "image_size", automatic)
    return int(size), 1 if data.greyscale else 3


def _inherited(parent: Parent) -> tuple[int, int]:
    return parent.image_size, parent.channels


def _encoder(image_size: int, device: Device) -> str:
    if device == "cpu":
        return "resnet10"
    return "resnet18" if image_size <= 64 else "resnet50"


def _epochs(stage: str, images: int, steps_per_epoch: int, device: Device) -> int:
    if device == "cuda":
        return max(1, min(CUDA_EPOCHS, CUDA_MAX_STEPS // steps_per_epoch))
    growth = min(MAX_GROWTH, max(1.0, math.sqrt(images / MEASURED_IMAGES)))
    return math.ceil(STEPS[stage] * growth / steps_per_epoch)


def _supervised_epochs(parent: Parent | None, labels: int, steps_per_epoch: int) -> int:
    stage = "scratch" if parent is None else "full"
    return _epochs(stage, labels, steps_per_epoch, "cpu")  # labels are few on any device


def _pretrain_rate(optimizer: str, batch: int) -> float:
    if optimizer == "adamw":
        return 2e-3
    if optimizer == "sgd":
        return 0.03 * batch / 256
    return round(0.075 * math.sqrt(batch), 4)  # arXiv 2002.05709, table B.1


def _augmentation(options: Mapping[str, Any], data: DataFacts, size: int) -> str:
    # What may have a right way round is not mirrored: a symmetry that was not used costs less
    # than one that is not there.
    grey = "document" if size <= SMALL_GREY else "greyscale"
    automatic = grey if data.greyscale else "small" if size <= SMALL_COLOUR else "photo"
    return str(_or(options, "augmentation", automatic))


def _temperature(data: DataFacts, size: int) -> float:
    if data.greyscale and size <= SMALL_GREY:
        return 1.0  # measured: docs/benchmarks.md
    return 0.5 if size <= SMALL_COLOUR else 0.2  # arXiv 2002.05709, appendix B.9 and table 5


def _no_contradiction(options: Mapping[str, Any], parent: Parent | None) -> None:
    for name in ("encoder", "image_size") if parent is not None else ():
        asked, found = _or(options, name, None), getattr(parent, name)
        if asked not in (None, found):
            raise SpecInvalid(
                f"{name}: found {asked!r}, the model that the job starts from has {found!r}; "
                "leave it out, or train from scratch without model_id and needs"
            )


def _need_classes(data: DataFacts) -> None:
    classes = len(data.labels_per_class)
    if classes < 2:
        found = "no labels" if classes == 0 else f"labels of one class ({data.labels})"
        raise NotEnoughLabels(
            f"dataset_id: found {found} outside the test split; at least two classes need labels"
        )
    missing = sorted(set(data.classes) - set(data.labels_per_class))
    if missing:
        raise NotEnoughLabels(
            f"dataset_id: the classes {', '.join(map(repr, missing[:10]))} have labels only on "
            "validation or test images, which are not trained on; label more images of them"
        )
