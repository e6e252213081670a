"""What each method is trained with.

Pre-training was tuned on other draws and images than are tested on (`tuning`); so was the network
from scratch (`tuning_scratch`). The other settings were not tuned: two passes for distillation,
half the augmentation's strength for it and for what has labels. A network trains as long as the one
from scratch once there are labels enough to train all of it, and shortly with fewer. Calibration is
left out where it would train a network twice: it does not change which class is named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from core.learning.augmentations import PRESETS, AugmentationConfig
from core.learning.distillation import DistillConfig
from core.learning.finetuning import FinetuneConfig
from core.learning.finetuning.config import TRAINABLE_LABELS
from core.learning.simclr import SimCLRConfig

ByLabels = Callable[[int], FinetuneConfig]

# Steps of a network on labels.
LONG, SHORT = 1000, 300


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of all methods on one dataset.

    Attributes:
        pretrain: The one pre-training that all draws share.
        scratch: The same encoder from random weights, by the number of labels a class.
        finetune: From the pre-trained encoder, as the stage does it by itself.
        supcon: Supervised contrastive learning from the pre-trained encoder on.
        distill: From the finetuned classifier to a student with random weights.
        small: The smaller student's encoder.
        distill_stride: Of the pool, every image that many is distilled on.
    """

    pretrain: SimCLRConfig
    scratch: ByLabels
    finetune: ByLabels
    supcon: ByLabels
    distill: DistillConfig
    small: str
    distill_stride: int = 1

    def quick(self) -> Recipe:
        """A tenth of the training: to see that everything runs."""
        budget, epochs = self.pretrain.budget_minutes, self.pretrain.epochs
        return replace(
            self,
            pretrain=replace(
                self.pretrain,
                budget_minutes=None if budget is None else budget / 10,
                epochs=None if epochs is None else max(1, epochs // 10),
            ),
            scratch=lambda per_class: _tenth(self.scratch(per_class)),
            finetune=lambda per_class: _tenth(self.finetune(per_class)),
            supcon=lambda per_class: _tenth(self.supcon(per_class)),
            distill_stride=10 * self.distill_stride,
        )


def recipe(name: str) -> Recipe:
    """The settings for a dataset."""
    return {"fashion-mnist": _fashion_mnist, "digits": _digits}[name]()


def _tenth(config: FinetuneConfig) -> FinetuneConfig:
    return replace(config, epochs=max(1, config.epochs // 10))


def epochs_of(steps: int, labels: int, batch_size: int) -> int:
    """Passes over so many labels that come nearest to a number of steps."""
    return max(1, round(steps / max(1, labels // min(batch_size, labels))))


def _fashion_mnist() -> Recipe:
    augmentation = PRESETS["greyscale"]
    pretrain = SimCLRConfig(
        encoder="resnet10",
        image_size=32,
        channels=1,
        epochs=None,
        budget_minutes=20.0,
        batch_size=64,
        learning_rate=3e-3,
        warmup_epochs=0.5,
        temperature=0.5,
        augmentation=augmentation,
    )
    # Labels, and a teacher's answers, have to survive what happens to an image; the network from
    # scratch was best with all of it (`tuning_scratch`).
    return _recipe(pretrain, augmentation.scaled(0.5), scratch=augmentation, distill_epochs=2)


def _digits() -> Recipe:
    augmentation = PRESETS["document"]
    pretrain = SimCLRConfig(
        encoder="resnet10",
        image_size=8,
        channels=1,
        epochs=50,
        temperature=1.0,
        augmentation=augmentation,
    )
    return _recipe(pretrain, augmentation, scratch=augmentation, distill_epochs=60)


def _recipe(
    pretrain: SimCLRConfig,
    augmentation: AugmentationConfig,
    *,
    scratch: AugmentationConfig,
    distill_epochs: int,
) -> Recipe:
    """What all datasets have in common; the augmentations of what is trained after the first."""

    def labelled(method: str, few: int = LONG, **options: Any) -> ByLabels:
        def config(per_class: int) -> FinetuneConfig:
            steps = few if per_class < TRAINABLE_LABELS else LONG
            epochs = epochs_of(steps, 10 * per_class, 64)
            return FinetuneConfig(
                method=method, epochs=epochs, **{"augmentation": augmentation, **options}
            )

        return config

    return Recipe(
        pretrain=pretrain,
        scratch=labelled("full", from_scratch=True, calibrate=False, augmentation=scratch),
        finetune=labelled("auto", SHORT, layer="auto"),
        supcon=labelled("supcon", SHORT, calibrate=False),
        distill=DistillConfig(epochs=distill_epochs, augmentation=augmentation),
        small="resnet10_tiny",
    )
