"""Stage 2: a classifier from few labels, on a frozen encoder or training everything."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from core.learning.augmentations import PRESETS, AugmentationConfig, augment
from core.learning.classifier import Classifier
from core.learning.determinism import seed_everything
from core.learning.encoders import Encoder
from core.learning.evaluation import accuracy, features
from core.learning.heads import classification_head
from core.learning.logistic import choose_l2, fit_logistic
from core.learning.preprocessing import Preprocessing
from core.learning.run import Run
from core.learning.tasks import StepResult
from core.learning.trainer import Progress, Stopped, TrainerConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneConfig:
    """What to train and how.

    `train` is "head": a linear head is fitted exactly on the frozen encoder's features, and of
    the other fields only the seed matters; or "full": encoder and head are trained with
    augmentation, batches of at most the number of labels.
    """

    train: Literal["head", "full"] = "head"
    epochs: int = 500
    batch_size: int = 64
    optimizer: str = "adamw"
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    warmup_epochs: float = 5.0
    augmentation: AugmentationConfig = PRESETS["small"]
    seed: int = 0

    def __post_init__(self) -> None:
        if self.train not in ("head", "full"):
            raise ValueError(f"train: found {self.train!r}, allowed are 'head' and 'full'")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`, also after a trip through JSON."""
        augmentation = AugmentationConfig.from_dict(values["augmentation"])
        return cls(**{**values, "augmentation": augmentation})


class SupervisedTask:
    """Cross-entropy on augmented views."""

    def __init__(
        self,
        classifier: Classifier,
        targets_N: Tensor,
        config: FinetuneConfig,
        preprocessing: Preprocessing,
    ) -> None:
        self.module = classifier
        self.targets_N = targets_N
        self.config = config
        self.preprocessing = preprocessing

    def step(self, images_BHWC: Tensor, rows_B: Tensor, generator: torch.Generator) -> StepResult:
        """Cross-entropy, and accuracy on the views."""
        views_1BCHW = augment(
            images_BHWC, config=self.config.augmentation, views=1, generator=generator
        )
        logits_BK = self.module(self.preprocessing.standardise(views_1BCHW[0]))
        targets_B = self.targets_N[rows_B]
        correct = (logits_BK.argmax(dim=1) == targets_B).float().mean()
        loss = functional.cross_entropy(logits_BK.float(), targets_B)
        return StepResult(loss=loss, metrics={"train_accuracy": correct})


def finetune(
    images_NHWC: NDArray[np.uint8],
    targets_N: NDArray[np.int64],
    encoder: Encoder,
    config: FinetuneConfig,
    preprocessing: Preprocessing,
    *,
    class_count: int,
    run: Run,
) -> Classifier:
    """Train a classifier on labelled canvases.

    Args:
        images_NHWC: uint8 canvases, every one labelled.
        targets_N: Class indices below class_count.
        encoder: Pre-trained, or with random weights for a baseline; a copy of it is used.
        config: See `FinetuneConfig`.
        preprocessing: The encoder's.
        class_count: Classes of the head.
        run: Device, callbacks, checkpoints.

    Returns:
        The classifier, on the CPU, in eval mode.

    Raises:
        ValueError: Images and targets do not fit together.
        Stopped: The run was asked to stop.
        Diverged: The loss became infinite or not a number.
    """
    _check(len(images_NHWC), targets_N, class_count)
    seed_everything(config.seed)
    encoder = copy.deepcopy(encoder)
    classifier = Classifier(encoder, classification_head(encoder.feature_dim, class_count))
    targets = torch.from_numpy(np.asarray(targets_N, dtype=np.int64))
    if config.train == "head":
        _fit_head(classifier, images_NHWC, targets, config, preprocessing, run)
    else:
        _train_all(classifier, images_NHWC, targets, config, preprocessing, run)
    return classifier.cpu().eval()


def _check(images: int, targets_N: NDArray[np.int64], class_count: int) -> None:
    if images != len(targets_N) or len(targets_N) < 2:
        raise ValueError(
            f"found {images} images and {len(targets_N)} targets, "
            "as many of both and at least 2 are needed"
        )
    if targets_N.min() < 0 or targets_N.max() >= class_count:
        raise ValueError(
            f"targets: found {targets_N.min()} to {targets_N.max()}, "
            f"allowed are 0 to {class_count - 1}"
        )


def _fit_head(
    classifier: Classifier,
    images_NHWC: NDArray[np.uint8],
    targets_N: Tensor,
    config: FinetuneConfig,
    preprocessing: Preprocessing,
    run: Run,
) -> None:
    started = time.monotonic()
    features_ND = features(classifier.encoder.eval(), images_NHWC, preprocessing, device=run.device)
    if run.should_stop is not None and run.should_stop():
        raise Stopped("stopped before the head was fitted")
    class_count = classifier.head.out_features
    l2 = choose_l2(features_ND, targets_N, class_count=class_count, seed=config.seed)
    weight_KD, bias_K = fit_logistic(features_ND, targets_N, class_count=class_count, l2=l2)
    with torch.no_grad():
        classifier.head.weight.copy_(weight_KD)
        classifier.head.bias.copy_(bias_K)
    if run.on_step is not None:
        logits_NK = features_ND @ weight_KD.T + bias_K
        run.on_step(
            Progress(
                step=1,
                steps=1,
                epoch=1,
                epochs=1,
                loss=functional.cross_entropy(logits_NK, targets_N).item(),
                images_per_second=len(targets_N) / max(time.monotonic() - started, 1e-9),
                seconds_left=0.0,
                metrics={"train_accuracy": accuracy(logits_NK, targets_N), "l2": l2},
            )
        )


def _train_all(
    classifier: Classifier,
    images_NHWC: NDArray[np.uint8],
    targets_N: Tensor,
    config: FinetuneConfig,
    preprocessing: Preprocessing,
    run: Run,
) -> None:
    settings = TrainerConfig.of(config)
    settings = replace(settings, batch_size=min(config.batch_size, len(targets_N)))
    fingerprint = {"finetune": config.to_dict(), "images": len(images_NHWC)}
    task = SupervisedTask(classifier, targets_N.to(run.device), config, preprocessing)
    run.trainer(settings, fingerprint=fingerprint).fit(task, images_NHWC)
