"""Multinomial logistic regression on features: what a linear head is fitted with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from core.learning.data import stratified_folds

# Penalties to choose from, strongest first: on a tie the stronger one wins.
L2_GRID: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01, 0.001)
# With one label a class nothing can be held out to choose by.
L2_UNCHOSEN = 0.03
CHOOSE_FOLDS = 5
CHOOSE_ROWS = 2000


def fit_logistic(
    features_ND: Tensor, targets_N: Tensor, *, class_count: int, l2: float
) -> tuple[Tensor, Tensor]:
    """Weights (K, D) and biases (K,) that minimise mean cross-entropy + l2/2 |W|^2, exactly.

    The penalty is on weights of features of zero mean whose variances average one; the result is
    for the features as given. All features share one scale: scaling each by itself would blow up
    those that hardly vary, like the border pixels of digits. Deterministic; float64 inside.

    Args:
        features_ND: One row a label.
        targets_N: Class indices below class_count; a class may be absent.
        class_count: Classes of the head.
        l2: Above 0.
    """
    features_ND = features_ND.double().cpu()
    mean_D = features_ND.mean(dim=0)
    scale = (features_ND - mean_D).square().mean().sqrt().clamp(min=1e-12)
    standard_ND = (features_ND - mean_D) / scale
    weight_KD, bias_K = _minimise(standard_ND, targets_N.cpu(), class_count, l2)
    weight_KD = weight_KD / scale
    return weight_KD.float(), (bias_K - weight_KD @ mean_D).float()


def choose_l2(features_ND: Tensor, targets_N: Tensor, *, class_count: int, seed: int) -> float:
    """The penalty with the best held-out likelihood in stratified cross-validation."""
    counts = targets_N.bincount()
    folds = min(CHOOSE_FOLDS, int(counts[counts > 0].min()))
    if folds < 2:
        return L2_UNCHOSEN
    rows = torch.arange(len(targets_N))
    if len(rows) > CHOOSE_ROWS:
        parts = len(rows) // CHOOSE_ROWS + 1
        rows = rows[stratified_folds(targets_N, folds=parts, seed=seed) == 0]
    features_ND, targets_N = features_ND[rows], targets_N[rows]
    fold_N = stratified_folds(targets_N, folds=folds, seed=seed)
    losses = torch.zeros(len(L2_GRID))
    for fold in range(folds):
        kept, held = fold_N != fold, fold_N == fold
        for index, l2 in enumerate(L2_GRID):
            weight_KD, bias_K = fit_logistic(
                features_ND[kept], targets_N[kept], class_count=class_count, l2=l2
            )
            logits_NK = features_ND[held].float() @ weight_KD.T + bias_K
            losses[index] += functional.cross_entropy(logits_NK, targets_N[held], reduction="sum")
    return L2_GRID[int(losses.argmin())]


def _minimise(
    features_ND: Tensor, targets_N: Tensor, class_count: int, l2: float
) -> tuple[Tensor, Tensor]:
    """L-BFGS in the span of the rows: the penalised optimum has no part outside it."""
    basis_RD = None
    if features_ND.shape[1] > features_ND.shape[0]:
        left_NR, scale_R, basis_RD = torch.linalg.svd(features_ND, full_matrices=False)
        features_ND = left_NR * scale_R
    weight_KR = features_ND.new_zeros(class_count, features_ND.shape[1], requires_grad=True)
    bias_K = features_ND.new_zeros(class_count, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight_KR, bias_K], max_iter=300, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        solver.zero_grad()
        loss = functional.cross_entropy(features_ND @ weight_KR.T + bias_K, targets_N)
        loss = loss + l2 / 2 * weight_KR.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(objective)  # type: ignore[no-untyped-call]
    weight = weight_KR.detach()
    return (weight if basis_RD is None else weight @ basis_RD), bias_K.detach()
