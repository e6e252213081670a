"""Confidences that mean what they say: temperature scaling on labels that were not trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from core.learning.evaluation import expected_calibration_error

# Between these the temperature is searched; halving the interval so often leaves nothing of it.
TEMPERATURES = (0.02, 50.0)
HALVINGS = 50
# Fewer labels than this say too little about confidence.
CALIBRATION_LABELS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What the logits are divided by, and what it is worth.

    Attributes:
        temperature: 1 when scaling did not help by more than a standard error.
        error_before: Expected calibration error of the logits as they are.
        error_after: The same with every row scaled by a temperature that others chose.
    """

    temperature: float
    error_before: float
    error_after: float


def calibrate(logits_NK: Tensor, targets_N: Tensor, fold_N: Tensor) -> Calibration:
    """Temperature scaling (arXiv 1706.04599, section 4.2), measured by cross-fitting.

    Args:
        logits_NK: Of rows that the model was not trained on.
        targets_N: Their classes.
        fold_N: Parts from 0; the temperature for one part is fitted on the others to measure
            the error afterwards, the one that is returned on all.
    """
    before = expected_calibration_error(logits_NK, targets_N)
    scaled_NK = cross_fitted(logits_NK, targets_N, fold_N)
    plain_N = functional.cross_entropy(logits_NK.double(), targets_N, reduction="none")
    gain_N = plain_N - functional.cross_entropy(scaled_NK.double(), targets_N, reduction="none")
    # On few labels a temperature can do harm: it has to gain more than chance would.
    if not gain_N.mean() > gain_N.std() / len(gain_N) ** 0.5:
        return Calibration(temperature=1.0, error_before=before, error_after=before)
    return Calibration(
        temperature=fit_temperature(logits_NK, targets_N),
        error_before=before,
        error_after=expected_calibration_error(scaled_NK, targets_N),
    )


def fit_temperature(logits_NK: Tensor, targets_N: Tensor) -> float:
    """What to divide logits by for the best likelihood of the targets.

    The loss is convex in the inverse of the temperature, so its slope is zero at one place. As
    the targets of Platt scaling (Platt 1999) a target has probability
    (N + 1) / (N + 2): a few labels that are all right do not make the model certain.
    """
    logits_NK = logits_NK.double()
    rows, class_count = logits_NK.shape
    rest = 1 / (rows + 2)
    wanted_NK = torch.full_like(logits_NK, rest / (class_count - 1))
    wanted_NK[torch.arange(rows), targets_N] = 1 - rest
    wanted = (wanted_NK * logits_NK).sum()
    low, high = (math.log(value) for value in TEMPERATURES)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = ((logits_NK / math.exp(middle)).softmax(dim=1) * logits_NK).sum()
        # Sharper than wanted: the temperature must rise.
        low, high = (middle, high) if found > wanted else (low, middle)
    return math.exp((low + high) / 2)


def cross_fitted(logits_NK: Tensor, targets_N: Tensor, fold_N: Tensor) -> Tensor:
    """The logits of each part, divided by the temperature of the other parts."""
    scaled_NK = logits_NK.clone()
    for fold in torch.unique(fold_N):
        held_N = fold_N == fold
        if not held_N.all():
            temperature = fit_temperature(logits_NK[~held_N], targets_N[~held_N])
            scaled_NK[held_N] = logits_NK[held_N] / temperature
    return scaled_NK
