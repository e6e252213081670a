"""Multinomial logistic regression on features: what a linear head is fitted with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from core.learning.data import stratified_folds
from core.learning.newton import LogisticProblems

# Penalties to choose from, strongest first: on a tie the stronger one wins.
L2_GRID: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01, 0.001)
# With one label a class nothing can be held out to choose by.
L2_UNCHOSEN = 0.03
CHOOSE_FOLDS = 5
CHOOSE_ROWS = 2000
# Rows times classes: with more, cross-validation of all penalties takes minutes.
CHOOSE_CELLS = 1_000_000
# The fold of labels that never leave the training part.
NEVER_HELD_OUT = -1


class LinearHead(NamedTuple):
    """Weights (K, D) and biases (K,), float32, for the features as they come."""

    weight_KD: Tensor
    bias_K: Tensor

    def logits(self, features_ND: Tensor) -> Tensor:
        """Logits, (N, K)."""
        return features_ND.float() @ self.weight_KD.T + self.bias_K


def fit_logistic(
    features_ND: Tensor,
    targets_N: Tensor,
    *,
    class_count: int,
    l2: float,
    weights_K: Tensor | None = None,
) -> LinearHead:
    """The head that minimises mean cross-entropy + l2/2 |W|^2, exactly.

    The penalty is on weights of features of zero mean whose variances average one; the result is
    for the features as given. All features share one scale: scaling each by itself would blow up
    those that hardly vary, like the border pixels of digits. Deterministic; float64 inside.

    Args:
        features_ND: One row a label.
        targets_N: Class indices below class_count; a class may be absent.
        class_count: Classes of the head.
        l2: Above 0.
        weights_K: Weight of each class in the mean; None weighs all labels alike.
    """
    rows = _Rows.of(features_ND, targets_N, weights_K)
    everything_1N = torch.ones(1, len(targets_N), dtype=torch.bool)
    [solution_R1K] = _path(rows, everything_1N, class_count=class_count, l2s=[l2])
    return rows.head(solution_R1K[:, 0])


def choose_l2(
    features_ND: Tensor,
    targets_N: Tensor,
    *,
    class_count: int,
    seed: int,
    weights_K: Tensor | None = None,
) -> float:
    """The penalty with the best held-out likelihood in stratified cross-validation."""
    if len(targets_N) > CHOOSE_ROWS:
        parts = len(targets_N) // CHOOSE_ROWS + 1
        chosen = stratified_folds(targets_N, folds=parts, seed=seed) == 0
        features_ND, targets_N = features_ND[chosen], targets_N[chosen]
    fold_N = held_out_folds(targets_N, folds=CHOOSE_FOLDS, seed=seed)
    if int(fold_N.max()) < 1:
        return L2_UNCHOSEN
    found = cross_validate(
        features_ND, targets_N, fold_N, class_count=class_count, weights_K=weights_K
    )
    return found.l2


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """What cross-validation found.

    Attributes:
        l2: The penalty with the best held-out likelihood.
        logits_NK: Of each row, by a head that was not fitted with it; rows that are never held
            out have logits of no meaning. The penalty for a fold was chosen by the others.
    """

    l2: float
    logits_NK: Tensor


def cross_validate(
    features_ND: Tensor,
    targets_N: Tensor,
    fold_N: Tensor,
    *,
    class_count: int,
    weights_K: Tensor | None = None,
    l2s: Sequence[float] = L2_GRID,
) -> CrossValidated:
    """Fit on all folds but one, predict that one, for every penalty.

    Args:
        features_ND: One row a label.
        targets_N: Class indices below class_count.
        fold_N: Fold of each row from 0, see `held_out_folds`; at least two folds.
        class_count: Classes of the head.
        weights_K: Weight of each class; None weighs all labels alike.
        l2s: Penalties, strongest first.
    """
    rows = _Rows.of(features_ND, targets_N, weights_K)
    folds = int(fold_N.max()) + 1
    kept_PN = torch.stack([fold_N != fold for fold in range(folds)])
    held_N = fold_N.clamp(min=0)
    losses_LF = torch.zeros(len(l2s), folds, dtype=torch.float64)
    logits_LNK = torch.empty(len(l2s), len(targets_N), class_count)
    solutions = _path(rows, kept_PN, class_count=class_count, l2s=l2s)
    for index, solution_RPK in enumerate(solutions):
        logits_NPK = torch.einsum("nr,rpk->npk", rows.features_NR, solution_RPK)
        logits_NK = logits_NPK[torch.arange(len(held_N)), held_N]
        loss_N = functional.cross_entropy(logits_NK, targets_N, reduction="none") * rows.weight_N
        tested_N = fold_N >= 0
        losses_LF[index].index_add_(0, fold_N[tested_N], loss_N[tested_N])
        logits_LNK[index] = logits_NK.float()
    others_LF = losses_LF.sum(dim=1, keepdim=True) - losses_LF
    chosen_N = others_LF.argmin(dim=0)[held_N]
    logits_NK = logits_LNK[chosen_N, torch.arange(len(targets_N))]
    return CrossValidated(l2s[int(losses_LF.sum(dim=1).argmin())], logits_NK)


def held_out_folds(targets_N: Tensor, *, folds: int, seed: int) -> Tensor:
    """Stratified folds in which every class always keeps a label to train on.

    The only label of a class is never held out (`NEVER_HELD_OUT`): no head can know a class that
    it was not shown. When no class has two labels, no row is held out.
    """
    counts_N = targets_N.bincount()[targets_N]
    fold_N = torch.full_like(targets_N, NEVER_HELD_OUT)
    several_N = counts_N > 1
    if several_N.any():
        folds = min(folds, int(counts_N.max()))
        fold_N[several_N] = stratified_folds(targets_N[several_N], folds=folds, seed=seed)
    return fold_N


@dataclass(frozen=True, slots=True)
class _Rows:
    """Labelled rows in coordinates in which their features are uncorrelated.

    The penalised optimum has no part outside the span of the rows, so with fewer rows than
    features their span is enough. The last coordinate is one, for the bias. All are divided by
    one scale, so that the tolerance of the solver means the same for features of any size.
    """

    features_NR: Tensor
    targets_N: Tensor
    weight_N: Tensor
    basis_RD: Tensor
    mean_D: Tensor
    scale: Tensor
    total_N: Tensor

    @classmethod
    def of(cls, features_ND: Tensor, targets_N: Tensor, weights_K: Tensor | None) -> _Rows:
        features_ND = features_ND.double().cpu()
        targets_N = targets_N.cpu()
        mean_D = features_ND.mean(dim=0)
        centred_ND = features_ND - mean_D
        scale = centred_ND.square().mean().sqrt().clamp(min=1e-12)
        centred_ND = centred_ND / scale
        if centred_ND.shape[0] < centred_ND.shape[1]:
            left_NR, size_R, basis_RD = torch.linalg.svd(centred_ND, full_matrices=False)
            turned_NR = left_NR * size_R
        else:
            _, vectors_DR = torch.linalg.eigh(centred_ND.T @ centred_ND)
            turned_NR, basis_RD = centred_ND @ vectors_DR, vectors_DR.T
        ones_N1 = turned_NR.new_ones(len(turned_NR), 1)
        weight_N = torch.ones(len(targets_N), dtype=torch.float64)
        if weights_K is not None:
            weight_N = weights_K.double().cpu()[targets_N]
        return cls(
            features_NR=torch.cat([turned_NR, ones_N1], dim=1),
            targets_N=targets_N,
            weight_N=weight_N,
            basis_RD=basis_RD,
            mean_D=mean_D,
            scale=scale,
            total_N=centred_ND.square().sum(dim=1),
        )

    def head(self, solution_RK: Tensor) -> LinearHead:
        """The solution in the features' own coordinates."""
        weight_KD = solution_RK[:-1].T @ self.basis_RD / self.scale
        bias_K = solution_RK[-1] - weight_KD @ self.mean_D
        return LinearHead(weight_KD.float(), bias_K.float())

    def variance(self, kept_N: Tensor) -> Tensor:
        """Mean variance of the scaled features over the rows that are kept."""
        kept = self.features_NR[kept_N, :-1]
        spread = self.total_N[kept_N].sum() - len(kept) * kept.mean(dim=0).square().sum()
        return (spread / (len(kept) * len(self.mean_D))).clamp(min=1e-24)


def _path(
    rows: _Rows, kept_PN: Tensor, *, class_count: int, l2s: Sequence[float]
) -> Iterator[Tensor]:
    """Solutions (R, P, K) of the problems with these rows kept, one for each penalty.

    All problems are solved at once, since their features are the same; each penalty starts from
    the solution of the one before it.
    """
    weight_PN = kept_PN * rows.weight_N
    weight_PN = weight_PN / weight_PN.sum(dim=1, keepdim=True)
    variance_P1 = torch.stack([rows.variance(kept_N) for kept_N in kept_PN])[:, None]
    penalised_R = torch.ones(rows.features_NR.shape[1], dtype=torch.float64)
    penalised_R[-1] = 0.0  # the bias is free
    solution_RPK = torch.zeros(len(penalised_R), len(kept_PN), class_count, dtype=torch.float64)
    for l2 in l2s:
        problems = LogisticProblems.of(
            rows.features_NR,
            rows.targets_N,
            class_count=class_count,
            weight_PN=weight_PN,
            penalty_PR=l2 * variance_P1 * penalised_R,
        )
        solution_RPK = problems.minimise(solution_RPK)
        yield solution_RPK
