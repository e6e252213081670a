"""Stage 2: an encoder and few labels → a classifier; without an encoder, the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.datasets.snapshot import SnapshotItem
from core.learning.architecture import Architecture
from core.learning.augmentations import PRESETS
from core.learning.classifier import Classifier
from core.learning.determinism import seed_everything
from core.learning.encoders import Encoder, build_encoder
from core.learning.evaluation import (
    Score,
    count_correct,
    cross_validated_accuracy,
    expected_calibration_error,
    features,
    predict_logits,
    require_usable,
)
from core.learning.finetuning import FinetuneConfig, finetune
from core.learning.preprocessing import Preprocessing
from core.stages.context import ParentModel, Pixels, StageContext
from core.stages.outcome import Outcome, measured

PLANNED = ("train", "epochs", "batch_size", "learning_rate", "weight_decay", "seed")


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Canvases with class indices, by split."""

    items: Sequence[SnapshotItem]
    images_NHWC: Pixels
    targets_N: NDArray[np.int64]

    def split(self, name: str) -> tuple[Pixels, NDArray[np.int64]]:
        """Canvases and targets of one split."""
        rows = [row for row, item in enumerate(self.items) if item.split == name]
        return self.images_NHWC[rows], self.targets_N[rows]


def run_finetune(context: StageContext) -> Outcome:
    """Train a classifier on the labels of the train split and measure it on what it has not seen.

    Every class has labels in the train split: the plan refuses others.
    """
    items = [item for item in context.items() if item.label is not None]
    classes = sorted({cast(str, item.label) for item in items if item.split == "train"})
    parent = context.parent()
    encoder, preprocessing, images_NHWC = _start(context, items, parent)
    targets_N = np.array([classes.index(cast(str, i.label)) for i in items], dtype=np.int64)
    labelled = LabelledImages(items, images_NHWC, targets_N)
    config = FinetuneConfig(
        **{name: context.job.plan[name] for name in PLANNED},
        augmentation=PRESETS[context.job.plan["augmentation"]],
    )
    train_images, train_targets = labelled.split("train")
    classifier = finetune(
        train_images,
        train_targets,
        encoder,
        config,
        preprocessing,
        class_count=len(classes),
        run=context.run(),
    )
    require_usable(classifier, train_images, preprocessing, device=context.device)
    metrics = evaluate(classifier, labelled, preprocessing, context.device)
    if config.train == "head" and metrics["validation"] is None:
        metrics["cross_validation"] = _cross_validate(
            encoder, train_images, train_targets, preprocessing, context.device
        )
    return Outcome(
        architecture=architecture_of(context.job.plan, classes),
        module=classifier.cpu(),
        preprocessing=preprocessing,
        config=config.to_dict(),
        metrics=metrics,
        classes=classes,
        parent=parent,
    )


def evaluate(
    classifier: Classifier, labelled: LabelledImages, preprocessing: Preprocessing, device: str
) -> dict[str, Any]:
    """Accuracy on the labelled images of the validation and test splits, None where there are none.

    The training images are counted, not measured on.
    """
    metrics: dict[str, Any] = {"labels": len(labelled.split("train")[1])}
    for split in ("validation", "test"):
        images_NHWC, targets = labelled.split(split)
        metrics[split] = None
        if len(targets):
            logits_NK = predict_logits(classifier, images_NHWC, preprocessing, device=device)
            targets_N = torch.from_numpy(targets)
            result = measured(count_correct(logits_NK, targets_N), method=f"{split} split")
            assert result is not None
            result["calibration_error"] = expected_calibration_error(logits_NK, targets_N)
            metrics[split] = result
    return metrics


def architecture_of(plan: Mapping[str, Any], classes: Sequence[str]) -> Architecture:
    """The classifier that a plan describes."""
    return Architecture(
        encoder=plan["encoder"],
        image_size=plan["image_size"],
        channels=plan["channels"],
        class_count=len(classes),
    )


def labelled_images(
    context: StageContext, preprocessing: Preprocessing, classes: list[str]
) -> LabelledImages:
    """The labelled images of the snapshot whose class the model knows."""
    items = [item for item in context.items() if item.label in classes]
    targets_N = np.array([classes.index(cast(str, i.label)) for i in items], dtype=np.int64)
    return LabelledImages(items, context.canvases(items, preprocessing), targets_N)


def _start(
    context: StageContext, items: Sequence[SnapshotItem], parent: ParentModel | None
) -> tuple[Encoder, Preprocessing, Pixels]:
    if parent is not None:
        images_NHWC = context.canvases(items, parent.preprocessing)
        return cast(Encoder, parent.module), parent.preprocessing, images_NHWC
    plan = context.job.plan
    preprocessing, images_NHWC = context.new_preprocessing(items)
    seed_everything(plan["seed"])
    encoder = build_encoder(
        plan["encoder"], image_size=plan["image_size"], channels=plan["channels"]
    )
    return encoder, preprocessing, images_NHWC


def _cross_validate(
    encoder: Encoder,
    images_NHWC: Pixels,
    targets: NDArray[np.int64],
    preprocessing: Preprocessing,
    device: str,
) -> dict[str, Any] | None:
    features_ND: Tensor = features(encoder, images_NHWC, preprocessing, device=device)
    score: Score | None = cross_validated_accuracy(features_ND, torch.from_numpy(targets))
    return measured(score, method="5-fold cross-validation of the head")
