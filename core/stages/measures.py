"""What a classifier's metrics say: accuracies with intervals, by class, and what is mixed up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core.learning.classifier import Classifier
from core.learning.evaluation import (
    confusion_matrix,
    count_correct,
    expected_calibration_error,
    per_class,
    predict_logits,
)
from core.learning.preprocessing import Preprocessing
from core.stages.labelled import LabelledImages
from core.stages.outcome import measured

# Cells of the confusion matrix that a manifest takes, the fullest ones; all of 50 classes.
MOST_CELLS = 2500


def evaluate(
    classifier: Classifier, labelled: LabelledImages, preprocessing: Preprocessing, device: str
) -> dict[str, Any]:
    """Measures on the labelled images of the validation and test splits, None where there are none.

    The training images are counted, not measured on.
    """
    metrics: dict[str, Any] = {
        "labels": labelled.count("train"),
        "confusion": {},
        "per_class": {},
    }
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
            add_by_class(metrics, split, logits_NK, targets_N, labelled.classes)
    return metrics


def add_by_class(
    metrics: dict[str, Any],
    source: str,
    logits_NK: Tensor,
    targets_N: Tensor,
    classes: Sequence[str],
) -> None:
    """Put what these predictions say of every class under "confusion" and "per_class".

    Both have the source ("test", …) as first key. `confusion` then has the true class and the
    predicted one, and leaves out what never happened.
    """
    confusion_KK = confusion_matrix(logits_NK.argmax(dim=1), targets_N, class_count=len(classes))
    metrics["confusion"][source] = _cells(confusion_KK, classes)
    metrics["per_class"][source] = {
        name: {
            "precision": score.precision,
            "recall": score.recall,
            "recall_interval_95": score.recall_interval and list(score.recall_interval),
            "f1": score.f1,
            "support": score.support,
        }
        for name, score in zip(classes, per_class(confusion_KK), strict=True)
    }


def _cells(confusion_KK: Tensor, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    found = confusion_KK.nonzero().tolist()
    found.sort(key=lambda cell: -int(confusion_KK[cell[0], cell[1]]))
    counts: dict[str, dict[str, int]] = {}
    for true, predicted in sorted(found[:MOST_CELLS]):
        row = counts.setdefault(classes[true], {})
        row[classes[predicted]] = int(confusion_KK[true, predicted])
    return counts
