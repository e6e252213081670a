"""Multinomial logistic regression in minibatches, for more labels than an exact solver likes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from core.learning.data import epoch_order, stratified_folds
from core.learning.logistic import L2_UNCHOSEN, LinearHead, held_out_folds

# Penalties to choose from, strongest first; many labels need little of it.
SGD_L2_GRID: tuple[float, ...] = (0.03, 0.003, 0.0003)
CHOOSE_ROWS = 10_000
EPOCHS = 30
FEWEST_STEPS = 1000
BATCH = 256
MOMENTUM = 0.9


def fit_logistic_by_sgd(
    features_ND: Tensor,
    targets_N: Tensor,
    *,
    class_count: int,
    l2: float,
    seed: int,
    weights_K: Tensor | None = None,
) -> LinearHead:
    """Nearly what `core.learning.logistic.fit_logistic` finds, with memory for one batch of logits.

    Stochastic gradient descent with momentum and a rate that falls to zero (cosine). The features
    are turned and scaled so that they are uncorrelated and the curvature is about one in every
    direction, which lets one rate suit all. Deterministic; float32 inside.

    Args:
        features_ND: One row a label.
        targets_N: Class indices below class_count.
        class_count: Classes of the head.
        l2: Above 0; as in `fit_logistic`.
        seed: Of the order of the rows.
        weights_K: Weight of each class in the mean; None weighs all labels alike.
    """
    features_ND, targets_N = features_ND.float().cpu(), targets_N.cpu()
    rows, width = features_ND.shape
    mean_D = features_ND.mean(dim=0)
    centred_ND = features_ND - mean_D
    penalty = l2 * float(centred_ND.square().mean().clamp(min=1e-12))
    variance_D, vectors_DD = torch.linalg.eigh((centred_ND.T @ centred_ND).double() / rows)
    # Half: the largest curvature of the softmax in its logits.
    scale_D = (variance_D.clamp(min=0) / 2 + penalty).rsqrt()
    whiten_DD = (vectors_DD * scale_D).float()
    inputs_ND = torch.cat([centred_ND @ whiten_DD, torch.ones(rows, 1)], dim=1)
    penalty_D1 = torch.cat([penalty * scale_D.square(), torch.zeros(1)]).float()[:, None]
    weight_K = torch.ones(class_count) if weights_K is None else weights_K.float().cpu()
    weight_N = weight_K[targets_N] / weight_K[targets_N].mean()
    batch = min(BATCH, rows)
    # The curvature of one batch exceeds that of all rows (Marchenko and Pastur 1967).
    peak = 1 / (1 + math.sqrt(width / batch)) ** 2
    solution_DK, moved_DK = torch.zeros(width + 1, class_count), torch.zeros(width + 1, class_count)
    steps_per_epoch = rows // batch
    steps = max(EPOCHS * steps_per_epoch, FEWEST_STEPS)
    for step in range(steps):
        epoch, position = divmod(step, steps_per_epoch)
        if position == 0:
            order_N = epoch_order(rows, seed=seed, epoch=epoch)
        rows_B = order_N[position * batch : (position + 1) * batch]
        residual_BK = (inputs_ND[rows_B] @ solution_DK).softmax(dim=1)
        residual_BK[torch.arange(batch), targets_N[rows_B]] -= 1
        residual_BK *= weight_N[rows_B, None] / batch
        slope_DK = inputs_ND[rows_B].T @ residual_BK + penalty_D1 * solution_DK
        moved_DK = MOMENTUM * moved_DK + slope_DK
        solution_DK = solution_DK - peak * (1 + math.cos(math.pi * step / steps)) / 2 * moved_DK
    weight_KD = (whiten_DD @ solution_DK[:-1]).T
    return LinearHead(weight_KD, solution_DK[-1] - weight_KD @ mean_D)


def choose_l2_by_sgd(
    features_ND: Tensor,
    targets_N: Tensor,
    *,
    class_count: int,
    seed: int,
    weights_K: Tensor | None = None,
) -> float:
    """The penalty with the best likelihood on a held-out fifth of at most 10,000 labels."""
    if len(targets_N) > CHOOSE_ROWS:
        parts = len(targets_N) // CHOOSE_ROWS + 1
        chosen_N = stratified_folds(targets_N, folds=parts, seed=seed) == 0
        features_ND, targets_N = features_ND[chosen_N], targets_N[chosen_N]
    held_N = held_out_folds(targets_N, folds=5, seed=seed) == 0
    if not held_N.any():
        return L2_UNCHOSEN
    losses = []
    for l2 in SGD_L2_GRID:
        head = fit_logistic_by_sgd(
            features_ND[~held_N],
            targets_N[~held_N],
            class_count=class_count,
            l2=l2,
            seed=seed,
            weights_K=weights_K,
        )
        logits_NK = head.logits(features_ND[held_N])
        weight_K = None if weights_K is None else weights_K.float()
        losses.append(functional.cross_entropy(logits_NK, targets_N[held_N], weight=weight_K))
    return SGD_L2_GRID[int(torch.stack(losses).argmin())]
