"""Linear heads on features that were computed once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.learning.logistic import (
    CHOOSE_CELLS,
    CHOOSE_ROWS,
    NEVER_HELD_OUT,
    LinearHead,
    choose_l2,
    cross_validate,
    fit_logistic,
)
from core.learning.minibatch import choose_l2_by_sgd, fit_logistic_by_sgd
from core.learning.prototypes import prototype_head


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadFitter:
    """How to get from features and labels to a head.

    Attributes:
        method: "linear" or "prototype".
        class_count: Classes of the head.
        solver: "lbfgs" (exact) or "sgd"; of the linear head.
        weights_K: Weights of the classes in the loss of the linear head, None for all alike.
        seed: Of folds and minibatches.
    """

    method: str
    class_count: int
    solver: str
    weights_K: Tensor | None
    seed: int

    def fit(
        self, features_ND: Tensor, targets_N: Tensor, *, l2: float | None = None
    ) -> tuple[LinearHead, float | None]:
        """A head and its penalty, if it has one: that which is given, else the best held-out."""
        if self.method == "prototype":
            return prototype_head(features_ND, targets_N, class_count=self.class_count), None
        if l2 is None:
            l2 = self._choose(features_ND, targets_N)
        return self._fit(features_ND, targets_N, l2), l2

    def cross_validate(
        self, features_ND: Tensor, targets_N: Tensor, fold_N: Tensor
    ) -> tuple[Tensor, float | None]:
        """Logits (N, K) by heads that were not fitted with the row's fold, and the penalty.

        Rows that are never held out have logits of no meaning.
        """
        exact = self.method == "linear" and self._chooses_exactly(len(targets_N))
        if exact and len(targets_N) <= CHOOSE_ROWS and int(fold_N.max()) > 0:
            found = cross_validate(
                features_ND,
                targets_N,
                fold_N,
                class_count=self.class_count,
                weights_K=self.weights_K,
            )
            return found.logits_NK, found.l2
        logits_NK = torch.zeros(len(targets_N), self.class_count)
        for fold in torch.unique(fold_N[fold_N != NEVER_HELD_OUT]):
            kept_N, held_N = fold_N != fold, fold_N == fold
            head, _ = self.fit(features_ND[kept_N], targets_N[kept_N])
            logits_NK[held_N] = head.logits(features_ND[held_N])
        return logits_NK, self._choose(features_ND, targets_N) if self.method == "linear" else None

    def _chooses_exactly(self, labels: int) -> bool:
        """Whether every penalty gets the exact solver; both solvers minimise the same loss."""
        cells = min(labels, CHOOSE_ROWS) * self.class_count
        return self.solver == "lbfgs" and cells <= CHOOSE_CELLS

    def _choose(self, features_ND: Tensor, targets_N: Tensor) -> float:
        choose = choose_l2 if self._chooses_exactly(len(targets_N)) else choose_l2_by_sgd
        return choose(
            features_ND,
            targets_N,
            class_count=self.class_count,
            seed=self.seed,
            weights_K=self.weights_K,
        )

    def _fit(self, features_ND: Tensor, targets_N: Tensor, l2: float) -> LinearHead:
        count, weights_K = self.class_count, self.weights_K
        if self.solver == "lbfgs":
            return fit_logistic(
                features_ND, targets_N, class_count=count, l2=l2, weights_K=weights_K
            )
        return fit_logistic_by_sgd(
            features_ND,
            targets_N,
            class_count=count,
            l2=l2,
            seed=self.seed,
            weights_K=weights_K,
        )
