"""Stage 3: a student learns a teacher's outputs on all images (SimCLRv2, arXiv 2006.10029)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.learning.augmentations import PRESETS, AugmentationConfig, augment
from core.learning.classifier import Classifier
from core.learning.determinism import seed_everything
from core.learning.losses import distillation_loss
from core.learning.preprocessing import Preprocessing
from core.learning.run import Run
from core.learning.tasks import StepResult
from core.learning.trainer import TrainerConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillConfig:
    """How the student learns; `learning_rate` is the peak, no scaling is applied to it."""

    epochs: int
    batch_size: int = 128
    temperature: float = 1.0
    optimizer: str = "adamw"
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    warmup_epochs: float = 1.0
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


class DistillationTask:
    """Teacher and student see the same view (arXiv 2106.05237: a good teacher is consistent)."""

    def __init__(
        self,
        teacher: Classifier,
        student: Classifier,
        config: DistillConfig,
        preprocessing: Preprocessing,
    ) -> None:
        self.teacher = teacher
        self.module = student
        self.config = config
        self.preprocessing = preprocessing

    def step(
        self,
        images_BHWC: Tensor,
        rows_B: Tensor,  # noqa: ARG002 — part of the task's interface
        generator: torch.Generator,
    ) -> StepResult:
        """Distillation loss, and how often both name the same class."""
        config = self.config
        views_1BCHW = augment(images_BHWC, config=config.augmentation, views=1, generator=generator)
        inputs_BCHW = self.preprocessing.standardise(views_1BCHW[0])
        with torch.no_grad():
            teacher_BK = self.teacher(inputs_BCHW)
        student_BK = self.module(inputs_BCHW)
        loss = distillation_loss(student_BK, teacher_BK, temperature=config.temperature)
        agreement = (student_BK.argmax(dim=1) == teacher_BK.argmax(dim=1)).float().mean()
        return StepResult(loss=loss, metrics={"agreement": agreement})


def distill(
    images_NHWC: NDArray[np.uint8],
    teacher: Classifier,
    student: Classifier,
    config: DistillConfig,
    preprocessing: Preprocessing,
    *,
    run: Run,
) -> Classifier:
    """Train a student with random weights to answer as the teacher does; needs no labels.

    Args:
        images_NHWC: uint8 canvases, labelled or not; at least one batch.
        teacher: Stays as it is.
        student: Random weights, the teacher's classes; a copy of it is trained.
        config: See `DistillConfig`.
        preprocessing: The teacher's, and from now on the student's.
        run: Device, callbacks, checkpoints.

    Returns:
        The trained student, on the CPU, in eval mode.

    Raises:
        ValueError: Teacher and student have different classes, or there are too few images.
        Stopped: The run was asked to stop.
        Diverged: The loss is no longer a number.
    """
    if teacher.head.out_features != student.head.out_features:
        raise ValueError(
            f"student: found {student.head.out_features} classes, "
            f"the teacher has {teacher.head.out_features}"
        )
    seed_everything(config.seed)
    frozen, learner = copy.deepcopy(teacher).to(run.device).eval(), copy.deepcopy(student)
    trainer = run.trainer(
        TrainerConfig.of(config),
        fingerprint={"distill": config.to_dict(), "images": len(images_NHWC)},
    )
    trainer.fit(DistillationTask(frozen, learner, config, preprocessing), images_NHWC)
    return learner.cpu().eval()
