"""What a plan is made from: the data, the device, and the model that a stage starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from core.db.models import Snapshot
from core.errors import NotEnoughLabels

Device = Literal["cpu", "cuda"]
Plan = dict[str, Any]


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

    @property
    def fewest_labels(self) -> int:
        """Labels of the class that has the fewest."""
        return min(self.labels_per_class.values(), default=0)


@dataclass(frozen=True, slots=True)
class Parent:
    """The model, made or still to be made, that a stage starts from.

    Attributes:
        kind: What it answers.
        encoder: Name of its network.
        image_size: Side of its input in pixels.
        channels: Channels of its input, 1 or 3.
        stem: Its first layers, "small" or "imagenet".
        has_projection: Whether the projection head of pre-training was kept with it.
        classes: What a classifier tells apart; None where that is not known yet.
    """

    kind: Literal["encoder", "classifier"]
    encoder: str
    image_size: int
    channels: int
    stem: str
    has_projection: bool = False
    classes: tuple[str, ...] | None = None


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


def require_two_classes(data: DataFacts, *, purpose: str) -> None:
    """Raise NotEnoughLabels unless two classes have labels that may be trained on."""
    classes = len(data.labels_per_class)
    if classes < 2:
        found = "no labels" if classes == 0 else f"labels of one class ({data.labels})"
        raise NotEnoughLabels(
            f"{purpose}: found {found} outside the test split; at least two classes need labels"
        )
