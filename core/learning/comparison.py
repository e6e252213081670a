"""A teacher and its student side by side: how good they are and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.learning.classifier import Classifier
from core.learning.complexity import count_parameters, multiply_adds, throughput
from core.learning.evaluation import Score, count_correct, predict_logits, wilson_interval
from core.learning.preprocessing import Preprocessing

Labelled = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Standing:
    """One of the two models.

    Attributes:
        scores: Correct answers on labelled images, by the name of the split.
        parameters: Trained values.
        multiply_adds: Of one image.
        images_per_second: On this machine, in batches; how fast the other one is beside it means
            more than the figure itself.
    """

    scores: Mapping[str, Score]
    parameters: int
    multiply_adds: int
    images_per_second: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, each accuracy with its 95 % interval."""
        return {
            **{split: proportion(score) for split, score in self.scores.items()},
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "images_per_second": round(self.images_per_second, 1),
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both models, and on how many images they name the same class."""

    teacher: Standing
    student: Standing
    agreement: Score


def compare(
    teacher: Classifier,
    student: Classifier,
    images_NHWC: NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    labelled: Mapping[str, Labelled],
    device: str = "cpu",
) -> Comparison:
    """Measure both with the same images.

    Args:
        teacher: Moved to the device, as the student is.
        student: Of the same classes.
        images_NHWC: uint8 canvases to agree on, labelled or not; best ones that neither was
            trained with. At least one.
        preprocessing: Of both.
        labelled: Canvases and class indices of each split to measure accuracy on; splits without
            images are left out.
        device: As torch names it.

    Raises:
        ValueError: There are no images.
    """
    if not len(images_NHWC):
        raise ValueError("images: found none to compare the answers on")
    models = (teacher, student)
    answers = [
        predict_logits(model, images_NHWC, preprocessing, device=device).argmax(dim=1)
        for model in models
    ]
    standings = [_standing(model, preprocessing, labelled, device) for model in models]
    agreement = Score(int((answers[0] == answers[1]).sum()), len(images_NHWC))
    return Comparison(standings[0], standings[1], agreement)


def proportion(score: Score) -> dict[str, Any]:
    """A share with its 95 % interval (Wilson), as plain JSON types."""
    low, high = wilson_interval(score.correct, score.total)
    return {
        "accuracy": score.accuracy,
        "interval_95": [low, high],
        "correct": score.correct,
        "total": score.total,
    }


def _standing(
    model: Classifier,
    preprocessing: Preprocessing,
    labelled: Mapping[str, Labelled],
    device: str,
) -> Standing:
    scores = {}
    for split, (images_NHWC, targets) in labelled.items():
        if len(targets):
            logits_NK = predict_logits(model, images_NHWC, preprocessing, device=device)
            scores[split] = count_correct(logits_NK, torch.from_numpy(targets))
    return Standing(
        scores,
        parameters=count_parameters(model),
        multiply_adds=multiply_adds(model, preprocessing.image_size, preprocessing.channels),
        images_per_second=throughput(model, preprocessing, device),
    )
