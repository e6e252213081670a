"""Cross-entropy on augmented views: the whole network learns the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from core.learning.augmentations import augment
from core.learning.classifier import Classifier
from core.learning.finetuning.config import FinetuneConfig
from core.learning.preprocessing import Preprocessing
from core.learning.recipe import TrainerConfig
from core.learning.run import Run
from core.learning.tasks import StepResult


class SupervisedTask:
    """Cross-entropy on one view of each image.

    Args:
        classifier: Trained in place.
        targets_N: Class of each row, on the device of the training.
        config: See `FinetuneConfig`.
        preprocessing: The encoder's.
        weights_K: Weight of each class in the loss, on the device of the training; None weighs
            all labels alike.
    """

    def __init__(
        self,
        classifier: Classifier,
        targets_N: Tensor,
        config: FinetuneConfig,
        preprocessing: Preprocessing,
        weights_K: Tensor | None = None,
    ) -> None:
        self.module = classifier
        self.targets_N = targets_N
        self.config = config
        self.preprocessing = preprocessing
        self.weights_K = weights_K

    def prepare(
        self,
        images_BHWC: Tensor,
        rows_B: Tensor,  # noqa: ARG002 — part of the task's interface
        generator: torch.Generator,
    ) -> Tensor:
        """One augmented view of each image, (B, C, S, S)."""
        views_1BCHW = augment(
            images_BHWC,
            config=self.config.augmentation,
            views=1,
            generator=generator,
            preprocessing=self.preprocessing,
        )
        return views_1BCHW[0]

    def step(self, inputs: Tensor, rows_B: Tensor) -> StepResult:
        """Cross-entropy, and accuracy on the views."""
        logits_BK = self.module(inputs)
        targets_B = self.targets_N[rows_B]
        correct = (logits_BK.argmax(dim=1) == targets_B).float().mean()
        loss = functional.cross_entropy(
            logits_BK.float(),
            targets_B,
            weight=self.weights_K,
            label_smoothing=self.config.label_smoothing,
        )
        return StepResult(loss=loss, metrics={"train_accuracy": correct})


def train_supervised(
    classifier: Classifier,
    images_NHWC: NDArray[np.uint8],
    targets_N: Tensor,
    *,
    config: FinetuneConfig,
    preprocessing: Preprocessing,
    run: Run,
    weights_K: Tensor | None = None,
) -> None:
    """Train everything in place; the encoder learns at its own rate.

    Raises:
        Stopped: The run was asked to stop.
        Diverged: The loss became infinite or not a number.
    """
    weights = None if weights_K is None else weights_K.float().to(run.device)
    task = SupervisedTask(classifier, targets_N.to(run.device), config, preprocessing, weights)
    settings = trainer_config(config, len(targets_N), slow=("encoder.", "hidden."))
    fingerprint = {"finetune": config.to_dict(), "images": len(targets_N)}
    run.trainer(settings, fingerprint=fingerprint).fit(task, images_NHWC)


def trainer_config(config: FinetuneConfig, labels: int, *, slow: Sequence[str]) -> TrainerConfig:
    """The loop's settings; parameters whose names begin as `slow` says have the encoder's rate."""
    settings = TrainerConfig.of(replace(config, batch_size=min(config.batch_size, labels)))
    factors = dict.fromkeys(slow, config.encoder_factor)
    return replace(settings, optimizer=replace(settings.optimizer, rate_factors=factors))
