"""Stage 1: contrastive pre-training on unlabelled images (SimCLR, arXiv 2002.05709)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.learning.augmentations import PRESETS, AugmentationConfig, augment
from core.learning.determinism import seed_everything
from core.learning.encoders import Encoder, build_encoder
from core.learning.heads import ProjectionHead
from core.learning.losses import chance_loss, nt_xent
from core.learning.preprocessing import Preprocessing
from core.learning.run import Run
from core.learning.tasks import StepResult
from core.learning.trainer import TrainerConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class SimCLRConfig:
    """What to pre-train and how; `learning_rate` is the peak, no scaling is applied to it."""

    encoder: str
    image_size: int
    channels: int
    epochs: int
    views: int = 2
    batch_size: int = 128
    temperature: float = 0.5
    hidden_dim: int = 256
    projection_dim: int = 64
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup_epochs: float = 2.0
    augmentation: AugmentationConfig = PRESETS["small"]
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`, also after a trip through JSON."""
        augmentation = AugmentationConfig.from_dict(values["augmentation"])
        return cls(**{**values, "augmentation": augmentation})


class SimCLRTask:
    """All views of a batch go through the encoder at once: separate batches would let the
    statistics of batch normalisation tell the views apart."""

    def __init__(
        self, encoder: Encoder, config: SimCLRConfig, preprocessing: Preprocessing
    ) -> None:
        head = ProjectionHead(
            encoder.feature_dim,
            hidden_dim=config.hidden_dim,
            projection_dim=config.projection_dim,
        )
        self.module = nn.Sequential(encoder, head)
        self.config = config
        self.preprocessing = preprocessing
        self.chance = torch.tensor(chance_loss(views=config.views, batch_size=config.batch_size))

    def step(
        self,
        images_BHWC: Tensor,
        rows_B: Tensor,  # noqa: ARG002 — part of the task's interface
        generator: torch.Generator,
    ) -> StepResult:
        """Contrastive loss; `chance_loss` is what it would be without learning."""
        config = self.config
        views_VBCHW = augment(
            images_BHWC, config=config.augmentation, views=config.views, generator=generator
        )
        inputs_NCHW = self.preprocessing.standardise(views_VBCHW.flatten(0, 1))
        z_VBD = self.module(inputs_NCHW).unflatten(0, (config.views, len(images_BHWC)))
        loss = nt_xent(z_VBD, temperature=config.temperature)
        return StepResult(loss=loss, metrics={"chance_loss": self.chance})


def pretrain(
    images_NHWC: NDArray[np.uint8],
    config: SimCLRConfig,
    preprocessing: Preprocessing,
    *,
    run: Run,
) -> Encoder:
    """Train an encoder from random weights on canvases without labels.

    Args:
        images_NHWC: uint8 canvases, in memory or mapped; at least one batch.
        config: See `SimCLRConfig`.
        preprocessing: What the canvases were made with.
        run: Device, callbacks, checkpoints.

    Returns:
        The encoder without its projection head, on the CPU, in eval mode.

    Raises:
        ValueError: The configuration contradicts itself or the data.
        Stopped: The run was asked to stop.
        Diverged: The loss became infinite or not a number.
    """
    found = (preprocessing.image_size, preprocessing.channels)
    if found != (config.image_size, config.channels):
        raise ValueError(
            f"image_size and channels: found {(config.image_size, config.channels)}, "
            f"the preprocessing has {found}"
        )
    seed_everything(config.seed)
    encoder = build_encoder(config.encoder, image_size=config.image_size, channels=config.channels)
    trainer = run.trainer(
        TrainerConfig.of(config),
        fingerprint={"simclr": config.to_dict(), "images": len(images_NHWC)},
    )
    trainer.fit(SimCLRTask(encoder, config, preprocessing), images_NHWC)
    return encoder.cpu().eval()
