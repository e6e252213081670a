"""Candidates for the classifier, compared on labels that they were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from core.learning.calibration import cross_fitted
from core.learning.data import stratified_folds
from core.learning.evaluation import count_correct, wilson_interval

PARTS = 5


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Predictions of labels that were not trained on.

    Attributes:
        logits_MK: One row a label.
        targets_M: The labels' classes.
        part_M: Parts that serve to fit on some and measure on the others.
        method: How they were held out, for people.
    """

    logits_MK: Tensor
    targets_M: Tensor
    part_M: Tensor
    method: str

    @classmethod
    def of(cls, logits_MK: Tensor, targets_M: Tensor, *, seed: int, method: str) -> HeldOut:
        """Of one model, so that the parts can be drawn."""
        part_M = stratified_folds(targets_M, folds=PARTS, seed=seed)
        return cls(logits_MK, targets_M, part_M, method)


@dataclass(frozen=True)
class Trial:
    """One candidate and how it did."""

    method: str
    layer: str
    held_out: HeldOut
    l2: float | None = None

    @cached_property
    def loss_of_each(self) -> Tensor:
        """Cross-entropy of every held-out label, after a temperature that other labels chose.

        Computed once: with many classes the temperatures take longer than the choice.
        """
        held = self.held_out
        logits_MK = cross_fitted(held.logits_MK, held.targets_M, held.part_M)
        return functional.cross_entropy(logits_MK.double(), held.targets_M, reduction="none")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        score = count_correct(self.held_out.logits_MK, self.held_out.targets_M)
        return {
            "method": self.method,
            "layer": self.layer,
            "accuracy": score.accuracy,
            "interval_95": list(wilson_interval(score.correct, score.total)),
            "correct": score.correct,
            "total": score.total,
            "log_loss": float(self.loss_of_each.mean()),
            "l2": self.l2,
        }


def choose(trials: Sequence[Trial], *, weights_K: Tensor | None = None, margin: float = 1.0) -> int:
    """The first trial that is no worse than the best by more than so many standard errors.

    Compared is the loss label by label, so the standard error is that of the difference: on few
    labels the winner by accuracy is often a matter of luck. Of the rules tried on digits with 2 to
    20 labels a class (best accuracy, best likelihood, one standard error of either) this one came
    nearest to the best candidate.

    Args:
        trials: On the same held-out labels, the one to prefer first.
        weights_K: Weights of the classes.
        margin: Standard errors; 0 takes the best.
    """
    rows_M = torch.ones_like(trials[0].held_out.part_M).bool()
    return _choose_on(trials, rows_M, weights_K, margin)


def _choose_on(
    trials: Sequence[Trial], rows_M: Tensor, weights_K: Tensor | None, margin: float
) -> int:
    losses_TM = torch.stack([trial.loss_of_each for trial in trials])[:, rows_M]
    if weights_K is not None:
        losses_TM = losses_TM * weights_K.double()[trials[0].held_out.targets_M[rows_M]]
    best = losses_TM[int(losses_TM.mean(dim=1).argmin())]
    for index, losses_M in enumerate(losses_TM):
        worse_M = losses_M - best
        error = worse_M.std() / len(worse_M) ** 0.5 if len(worse_M) > 1 else 0.0
        if float(worse_M.mean()) <= margin * float(error):
            return index
    raise AssertionError("the best is no worse than itself")


def predictions_of_choice(
    trials: Sequence[Trial], *, weights_K: Tensor | None = None, margin: float = 1.0
) -> HeldOut:
    """Predictions of the whole procedure: in each part those of the trial that the others choose.

    The accuracy of the trial that is best on some labels flatters it on these labels.
    """
    held = trials[0].held_out
    if len(trials) == 1:
        return held
    logits_MK = torch.empty_like(held.logits_MK)
    for part in torch.unique(held.part_M):
        rows_M = held.part_M == part
        index = _choose_on(trials, ~rows_M, weights_K, margin) if not rows_M.all() else 0
        logits_MK[rows_M] = trials[index].held_out.logits_MK[rows_M]
    return HeldOut(logits_MK, held.targets_M, held.part_M, held.method)
