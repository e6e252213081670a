"""What to train from labels, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from core.learning.augmentations import PRESETS, AugmentationConfig

METHODS: tuple[str, ...] = ("linear", "prototype", "full", "supcon", "auto")
LAYERS: tuple[str, ...] = ("encoder", "projection", "auto")
SOLVERS: tuple[str, ...] = ("lbfgs", "sgd")
CLASS_WEIGHTS: tuple[str, ...] = ("none", "balanced", "auto")
HEAD_METHODS: tuple[str, ...] = ("linear", "prototype")
NETWORK_METHODS: tuple[str, ...] = ("full", "supcon")
# Below this many labels in every class, training everything learns the images by heart.
TRAINABLE_LABELS = 20
# The share of the head's rate at which a pre-trained encoder learns when nothing is said.
ENCODER_RATE = 0.1
ALLOWED: dict[str, tuple[str, ...]] = {
    "method": METHODS,
    "layer": LAYERS,
    "solver": SOLVERS,
    "class_weights": CLASS_WEIGHTS,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneConfig:
    """What to train and how.

    Attributes:
        method: "linear" fits a linear head on features of the frozen encoder, "prototype" takes
            the class means as the head, "full" trains encoder and head with augmentation,
            "supcon" trains the encoder with the supervised contrastive loss and then fits a linear
            head, "auto" compares `candidates` on labels that were not trained on.
        candidates: Methods that "auto" compares; None leaves it to the number of labels: those on
            cached features always, those that train everything from 20 labels a class on.
        layer: Features of the "encoder", or of the first layer of its "projection" head; "auto"
            compares both where there is a projection head.
        solver: Of the linear head: "lbfgs" goes on to the optimum with all labels in each step
            (by Newton's method, which needs fewer steps than L-BFGS), "sgd" goes through the
            cached features in minibatches, for very many labels.
        class_weights: "balanced" gives every class the same say in the loss, "auto" does so when
            the largest class has more than three times the labels of the smallest.
        calibrate: Scale the logits by a temperature chosen on labels that were not trained on.
        from_scratch: The encoder has random weights, so the whole of it learns at the full rate.
        encoder_learning_rate: Peak rate of a pre-trained encoder in "full"; None is a tenth of
            learning_rate.
        temperature: Of the supervised contrastive loss.
        views: Views of each image in "supcon".
        label_smoothing: Of the cross-entropy in "full".
        epochs: Passes over the labels in "full" and "supcon".
        batch_size: At most the number of labels is used.
        optimizer: One of `core.learning.optimizers.OPTIMIZERS`.
        learning_rate: Peak rate.
        lr_scaling: One of `core.learning.optimizers.LR_SCALINGS`.
        weight_decay: Not of norms and biases.
        warmup_epochs: Linear warm-up.
        clip_grad_norm: Largest norm of the gradient, None for any.
        budget_minutes: Training time in place of epochs.
        precision: One of `core.learning.precision.PRECISIONS`.
        augmentation: Of "full" and "supcon".
        seed: Of everything random.
    """

    method: str = "linear"
    candidates: tuple[str, ...] | None = None
    layer: str = "encoder"
    solver: str = "lbfgs"
    class_weights: str = "none"
    calibrate: bool = True
    from_scratch: bool = False
    encoder_learning_rate: float | None = None
    temperature: float = 0.1
    views: int = 2
    label_smoothing: float = 0.0
    epochs: int = 500
    batch_size: int = 64
    optimizer: str = "adamw"
    learning_rate: float = 3e-3
    lr_scaling: str = "none"
    weight_decay: float = 1e-2
    warmup_epochs: float = 5.0
    clip_grad_norm: float | None = None
    budget_minutes: float | None = None
    precision: str = "float32"
    augmentation: AugmentationConfig = PRESETS["small"]
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name}: found {getattr(self, name)!r}, allowed are {', '.join(allowed)}"
                )
        unknown = set(self.candidates or ()) - set(HEAD_METHODS + NETWORK_METHODS)
        if unknown or self.candidates == ():
            raise ValueError(
                f"candidates: found {self.candidates}, allowed are one or more of "
                f"{', '.join(HEAD_METHODS + NETWORK_METHODS)}"
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing: found {self.label_smoothing}, allowed is 0 to below 1"
            )
        if self.views < 2:
            raise ValueError(f"views: found {self.views}, at least 2 are needed")

    @property
    def encoder_factor(self) -> float:
        """The encoder's share of the learning rate."""
        if self.encoder_learning_rate is not None:
            return self.encoder_learning_rate / self.learning_rate
        return 1.0 if self.from_scratch else ENCODER_RATE

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        candidates = None if self.candidates is None else list(self.candidates)
        return {**asdict(self), "candidates": candidates}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`, also after a trip through JSON."""
        augmentation = AugmentationConfig.from_dict(values["augmentation"])
        given = values.get("candidates")
        candidates = None if given is None else tuple(given)
        return cls(**{**values, "augmentation": augmentation, "candidates": candidates})
