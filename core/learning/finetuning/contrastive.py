"""The supervised contrastive loss: images of one class attract (SupCon, arXiv 2004.11362)."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.learning.augmentations import augment
from core.learning.encoders import Encoder
from core.learning.finetuning.config import FinetuneConfig
from core.learning.finetuning.supervised import trainer_config
from core.learning.heads import ProjectionHead
from core.learning.losses import contrastive_loss, view_groups
from core.learning.preprocessing import Preprocessing
from core.learning.run import Run
from core.learning.tasks import StepResult


class SupConTask:
    """All views of all images of a class in the batch are each other's positives.

    An image that is alone of its class in the batch still has its own other views, so there is
    never an anchor without positives.

    Args:
        encoder: Trained in place.
        projection: Trained in place.
        targets_N: Class of each row, on the device of the training.
        config: See `FinetuneConfig`.
        preprocessing: The encoder's.
    """

    def __init__(
        self,
        encoder: Encoder,
        projection: ProjectionHead,
        targets_N: Tensor,
        config: FinetuneConfig,
        preprocessing: Preprocessing,
    ) -> None:
        parts = OrderedDict[str, nn.Module](encoder=encoder, projection=projection)
        self.module = nn.Sequential(parts)
        self.targets_N = targets_N
        self.config = config
        self.preprocessing = preprocessing

    def prepare(
        self,
        images_BHWC: Tensor,
        rows_B: Tensor,  # noqa: ARG002 — part of the task's interface
        generator: torch.Generator,
    ) -> Tensor:
        """Augmented views, (V, B, C, S, S)."""
        return augment(
            images_BHWC,
            config=self.config.augmentation,
            views=self.config.views,
            generator=generator,
            preprocessing=self.preprocessing,
        )

    def step(self, inputs: Tensor, rows_B: Tensor) -> StepResult:
        """Loss of one batch; all views go through the encoder at once."""
        z_ND = self.module(inputs.flatten(0, 1))
        groups_N = view_groups(
            inputs.shape[1], inputs.shape[0], targets_B=self.targets_N[rows_B]
        ).to(z_ND.device)
        loss = contrastive_loss(z_ND, groups_N, loss="supcon", temperature=self.config.temperature)
        return StepResult(loss=loss)


def train_contrastive(
    encoder: Encoder,
    projection: ProjectionHead,
    images_NHWC: NDArray[np.uint8],
    targets_N: Tensor,
    *,
    config: FinetuneConfig,
    preprocessing: Preprocessing,
    run: Run,
) -> None:
    """Train encoder and projection head in place, both at the encoder's rate.

    Raises:
        Stopped: The run was asked to stop.
        Diverged: The loss became infinite or not a number.
    """
    task = SupConTask(encoder, projection, targets_N.to(run.device), config, preprocessing)
    settings = trainer_config(config, len(targets_N), slow=("encoder.", "projection."))
    fingerprint = {"supcon": config.to_dict(), "images": len(targets_N)}
    run.trainer(settings, fingerprint=fingerprint).fit(task, images_NHWC)
