"""Stage 3: a student learns a teacher's outputs on all images (SimCLRv2, arXiv 2006.10029)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

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
    """How the student learns.

    Attributes:
        epochs: Passes over all images; None only if there is a time budget.
        temperature: Divides the logits of both. SimCLRv2 (section 4.2) takes 1 for a smaller
            student and 0.1 for one of the teacher's architecture.
        alpha: The teacher's share of the loss, the labels have the rest (SimCLRv2, eq. 3).
        mixup: Show both a blend of two images, its weight drawn evenly for each batch (arXiv
            2106.05237, section 3).
        learning_rate: The peak; if `lr_scaling` is not "none", of a batch of 256.
        budget_minutes: Train for about this long in place of `epochs`.
    """

    epochs: int | None
    batch_size: int = 128
    temperature: float = 1.0
    alpha: float = 1.0
    mixup: bool = False
    optimizer: str = "adamw"
    learning_rate: float = 3e-3
    lr_scaling: str = "none"
    weight_decay: float = 1e-4
    warmup_epochs: float = 1.0
    clip_grad_norm: float | None = None
    budget_minutes: float | None = None
    precision: str = "float32"
    augmentation: AugmentationConfig = PRESETS["small"]
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature: found {self.temperature}, a value above 0 is needed")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha: found {self.alpha}, allowed are 0 to 1")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`, also after a trip through JSON."""
        augmentation = AugmentationConfig.from_dict(values["augmentation"])
        return cls(**{**values, "augmentation": augmentation})


class Blend(NamedTuple):
    """Model inputs, each `share` of an image and the rest of its partner in the batch."""

    inputs_BCHW: Tensor
    partner_B: Tensor
    share: float


class DistillationTask:
    """Teacher and student see the same view (arXiv 2106.05237: a good teacher is consistent).

    Args:
        teacher: Frozen.
        student: Is trained.
        config: See `DistillConfig`.
        preprocessing: Of both.
        targets_N: Classes of all images, -1 where there is no label.
    """

    def __init__(
        self,
        teacher: Classifier,
        student: Classifier,
        config: DistillConfig,
        preprocessing: Preprocessing,
        *,
        targets_N: Tensor | None = None,
    ) -> None:
        self.teacher = teacher
        self.module = student
        self.config = config
        self.preprocessing = preprocessing
        self.targets_N = targets_N

    def prepare(
        self,
        images_BHWC: Tensor,
        rows_B: Tensor,  # noqa: ARG002 — part of the task's interface
        generator: torch.Generator,
    ) -> Blend:
        """One standardised view of each image, blended with another if the configuration says so.

        The standardisation is linear, so blending before or after it is the same.
        """
        config = self.config
        inputs_BCHW = augment(
            images_BHWC,
            config=config.augmentation,
            views=1,
            generator=generator,
            preprocessing=self.preprocessing,
        )[0]
        batch, device = len(inputs_BCHW), inputs_BCHW.device
        if not config.mixup:
            return Blend(inputs_BCHW, torch.arange(batch, device=device), 1.0)
        share = float(torch.rand((), generator=generator, device=generator.device))
        partner_B = torch.randperm(batch, generator=generator, device=generator.device).to(device)
        mixed_BCHW = share * inputs_BCHW + (1 - share) * inputs_BCHW[partner_B]
        return Blend(mixed_BCHW, partner_B, share)

    def step(self, inputs: Blend, rows_B: Tensor) -> StepResult:
        """Distillation loss, and how often both name the same class."""
        with torch.no_grad():
            teacher_BK = self.teacher(inputs.inputs_BCHW)
        student_BK = self.module(inputs.inputs_BCHW)
        loss = self._loss(student_BK, teacher_BK, rows_B)
        if inputs.share < 1 and self.config.alpha < 1:
            # A blend has the labels of both its images, each by its share (arXiv 1710.09412).
            other = self._loss(student_BK, teacher_BK, rows_B[inputs.partner_B])
            loss = inputs.share * loss + (1 - inputs.share) * other
        agreement = (student_BK.argmax(dim=1) == teacher_BK.argmax(dim=1)).float().mean()
        return StepResult(loss=loss, metrics={"agreement": agreement})

    def _loss(self, student_BK: Tensor, teacher_BK: Tensor, rows_B: Tensor) -> Tensor:
        return distillation_loss(
            student_BK,
            teacher_BK,
            temperature=self.config.temperature,
            targets_B=None if self.targets_N is None else self.targets_N[rows_B],
            alpha=self.config.alpha,
        )


def distill(
    images_NHWC: NDArray[np.uint8],
    teacher: Classifier,
    student: Classifier,
    config: DistillConfig,
    preprocessing: Preprocessing,
    *,
    run: Run,
    targets_N: NDArray[np.int64] | None = None,
) -> Classifier:
    """Train a student to answer as the teacher does; needs no labels unless alpha is below 1.

    Args:
        images_NHWC: uint8 canvases, labelled or not; at least one batch.
        teacher: Stays as it is.
        student: Random weights or a pre-trained encoder, the teacher's classes; a copy of it is
            trained.
        config: See `DistillConfig`.
        preprocessing: The teacher's, and from now on the student's, whatever it was pre-trained
            with: both must see the same pixels.
        run: Device, callbacks, checkpoints.
        targets_N: Class indices, -1 for images without a label.

    Returns:
        The trained student, on the CPU, in eval mode.

    Raises:
        ValueError: Teacher and student have different classes, there are too few images, or
            images and targets do not fit together.
        Stopped: The run was asked to stop.
        Diverged: The loss is no longer a number.
    """
    class_count = teacher.head.out_features
    if class_count != student.head.out_features:
        raise ValueError(
            f"student: found {student.head.out_features} classes, the teacher has {class_count}"
        )
    targets = _targets(targets_N, len(images_NHWC), class_count, config.alpha)
    seed_everything(config.seed)
    frozen, learner = copy.deepcopy(teacher).to(run.device).eval(), copy.deepcopy(student)
    task = DistillationTask(
        frozen,
        learner,
        config,
        preprocessing,
        targets_N=None if targets is None else targets.to(run.device),
    )
    trainer = run.trainer(
        TrainerConfig.of(config),
        fingerprint={"distill": config.to_dict(), "images": len(images_NHWC)},
    )
    trainer.fit(task, images_NHWC)
    return learner.cpu().eval()


def _targets(
    targets_N: NDArray[np.int64] | None, images: int, class_count: int, alpha: float
) -> Tensor | None:
    """The labels as a tensor, or None when the loss has no use for them."""
    if targets_N is None or not (targets_N >= 0).any():
        if alpha < 1:
            raise ValueError(f"alpha: found {alpha}, but there is no label to learn; 1 needs none")
        return None
    if len(targets_N) != images:
        raise ValueError(f"found {images} images and {len(targets_N)} targets")
    if targets_N.min() < -1 or targets_N.max() >= class_count:
        raise ValueError(
            f"targets: found {targets_N.min()} to {targets_N.max()}, allowed are -1 (no label) "
            f"to {class_count - 1}"
        )
    return torch.from_numpy(np.asarray(targets_N, dtype=np.int64)) if alpha < 1 else None
