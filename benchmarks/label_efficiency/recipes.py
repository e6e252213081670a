"""What each method is trained with; tuned on other draws and images than are tested on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from core.learning.augmentations import PRESETS
from core.learning.distillation import DistillConfig
from core.learning.finetuning import FinetuneConfig
from core.learning.simclr import SimCLRConfig


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of all methods on one dataset.

    Attributes:
        pretrain: The one pre-training that all draws share.
        scratch: The same encoder from random weights, by the number of labels a class.
        finetune: On the frozen encoder.
        supcon: Supervised contrastive learning from the pre-trained encoder on.
        distill: From the finetuned classifier to a student with random weights.
        small: The smaller student's encoder.
    """

    pretrain: SimCLRConfig
    scratch: Callable[[int], FinetuneConfig]
    finetune: FinetuneConfig
    supcon: FinetuneConfig
    distill: DistillConfig
    small: str

    def quick(self) -> Recipe:
        """A tenth of the training: to see that everything runs."""
        budget, epochs = self.pretrain.budget_minutes, self.pretrain.epochs
        return Recipe(
            pretrain=replace(
                self.pretrain,
                budget_minutes=None if budget is None else budget / 10,
                epochs=None if epochs is None else max(1, epochs // 10),
            ),
            scratch=lambda per_class: _tenth(self.scratch(per_class)),
            finetune=self.finetune,
            supcon=_tenth(self.supcon),
            distill=replace(self.distill, epochs=max(1, (self.distill.epochs or 10) // 10)),
            small=self.small,
        )


def recipe(name: str) -> Recipe:
    """The settings for a dataset."""
    return {"fashion-mnist": _fashion_mnist, "digits": _digits}[name]()


def _tenth(config: FinetuneConfig) -> FinetuneConfig:
    return replace(config, epochs=max(1, config.epochs // 10))


def _epochs(steps: int, labels: int, batch_size: int) -> int:
    return max(1, round(steps / max(1, labels // min(batch_size, labels))))


def _fashion_mnist() -> Recipe:
    augmentation = PRESETS["greyscale"]
    return Recipe(
        pretrain=SimCLRConfig(
            encoder="resnet10",
            image_size=32,
            channels=1,
            epochs=None,
            budget_minutes=20.0,
            temperature=0.5,
            augmentation=augmentation,
        ),
        scratch=lambda per_class: FinetuneConfig(
            method="full",
            from_scratch=True,
            epochs=_epochs(1000, 10 * per_class, 64),
            augmentation=augmentation,
        ),
        finetune=FinetuneConfig(method="auto", layer="auto"),
        supcon=FinetuneConfig(method="supcon", epochs=100, augmentation=augmentation),
        distill=DistillConfig(epochs=4, augmentation=augmentation),
        small="resnet10_tiny",
    )


def _digits() -> Recipe:
    augmentation = PRESETS["document"]
    return Recipe(
        pretrain=SimCLRConfig(
            encoder="resnet10",
            image_size=8,
            channels=1,
            epochs=50,
            temperature=1.0,
            augmentation=augmentation,
        ),
        scratch=lambda per_class: FinetuneConfig(
            method="full",
            from_scratch=True,
            epochs=_epochs(1000, 10 * per_class, 64),
            augmentation=augmentation,
        ),
        finetune=FinetuneConfig(method="auto", layer="auto"),
        supcon=FinetuneConfig(method="supcon", epochs=100, augmentation=augmentation),
        distill=DistillConfig(epochs=60, augmentation=augmentation),
        small="resnet10_tiny",
    )
