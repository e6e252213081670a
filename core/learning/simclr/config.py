"""What to pre-train and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from core.learning.augmentations import PRESETS, AugmentationConfig
from core.learning.losses import LOSSES


@dataclass(frozen=True, kw_only=True, slots=True)
class SimCLRConfig:
    """Options of a pre-training.

    Attributes:
        encoder: One of `core.learning.encoders.ENCODERS`.
        image_size: Side length of the canvases in pixels.
        channels: Of the canvases, 1 or 3.
        epochs: Passes over the images; None only if there is a time budget.
        stem: "auto", "small" or "imagenet".
        init: "random", or "imagenet" to go on from weights trained on ImageNet.
        views: Views of each image in a batch, at least 2.
        batch_size: Images in a batch, over all processes.
        micro_batch_size: Most images of a process that go through the encoder at once; a batch
            larger than memory costs a second forward pass (gradient caching). None = all.
        loss: One of `core.learning.losses.LOSSES`.
        temperature: Divides the cosine similarities.
        use_labels: Images of the same class attract each other where both have a label.
        label_share: Of each batch, drawn from the labelled images if labels are used.
        hidden_dim: Width of the projection head's layers but the last; None = as the features.
        projection_dim: Width of its last layer.
        projection_layers: Its linear layers.
        optimizer: One of `core.learning.optimizers.OPTIMIZERS`.
        learning_rate: Peak; if `lr_scaling` is not "none", for a batch of 256.
        lr_scaling: One of `core.learning.optimizers.LR_SCALINGS`.
        weight_decay: See `OptimizerConfig`.
        warmup_epochs: In which the learning rate rises.
        clip_grad_norm: Longest that the gradient of a step may be; None = any length.
        budget_minutes: Train for about this long in place of `epochs`.
        precision: One of `core.learning.precision.PRECISIONS`.
        augmentation: What the views are made with.
        probe_every: Steps between two looks at the features; None = about 20 a run.
        plateau_patience: Looks without gain that end the training; None = never.
        seed: All that is random follows from it.
    """

    encoder: str
    image_size: int
    channels: int
    epochs: int | None
    stem: str = "auto"
    init: str = "random"
    views: int = 2
    batch_size: int = 128
    micro_batch_size: int | None = None
    loss: str = "nt_xent"
    temperature: float = 0.5
    use_labels: bool = False
    label_share: float = 0.25
    hidden_dim: int | None = None
    projection_dim: int = 64
    projection_layers: int = 2
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    lr_scaling: str = "none"
    weight_decay: float = 1e-4
    warmup_epochs: float = 2.0
    clip_grad_norm: float | None = None
    budget_minutes: float | None = None
    precision: str = "float32"
    augmentation: AugmentationConfig = PRESETS["small"]
    probe_every: int | None = None
    plateau_patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss: found {self.loss!r}, allowed are {', '.join(LOSSES)}")
        least = {"views": 2, "micro_batch_size": 2, "probe_every": 1, "plateau_patience": 1}
        for name, allowed in least.items():
            value = getattr(self, name)
            if value is not None and value < allowed:
                raise ValueError(f"{name}: found {value}, at least {allowed} is needed")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`, also after a trip through JSON."""
        augmentation = AugmentationConfig.from_dict(values["augmentation"])
        return cls(**{**values, "augmentation": augmentation})
