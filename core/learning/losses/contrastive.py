"""Contrastive losses that never hold all logits at once.

Every anchor row i has positives P (the other rows of its group) and negatives Neg (the rows of
other groups); s are cosine similarities divided by the temperature. The losses differ in what a
positive p is set against:

    nt_xent   −mean_P log e^{s_p} / (e^{s_p} + Σ_Neg e^s)    SimCLR (arXiv 2002.05709, eq. 1)
    supcon    −mean_P log e^{s_p} / (Σ_P e^s + Σ_Neg e^s)    L_out (arXiv 2004.11362, eq. 2)
    dcl       −mean_P log e^{s_p} / Σ_Neg e^s                decoupled (arXiv 2110.06848)

Two views of unlabelled images make nt_xent and supcon equal. With more positives, supcon also
sets them against each other, so it cannot fall below log |P|; the others can.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from core.learning.losses.groups import Pairs, view_groups

LOSSES = ("nt_xent", "supcon", "dcl")


@dataclass(frozen=True, slots=True)
class Keys:
    """What anchors are compared with: in several processes, the rows of all of them.

    Attributes:
        z_MD: Projections; the anchors are N rows of them.
        groups_M: Their groups.
        offset: The first anchor's row.
    """

    z_MD: Tensor
    groups_M: Tensor
    offset: int


def contrastive_loss(
    z_ND: Tensor,
    groups_N: Tensor,
    *,
    loss: str,
    temperature: float,
    keys: Keys | None = None,
    chunk_elements: int = 2**22,
) -> Tensor:
    """Mean loss of the anchors that have positives; scalar, 0 when none has.

    A row without positives is a negative to the others and nothing else; in dcl, a row without
    negatives does not count. The gradient is found along with the loss, a few anchors at a time:
    memory grows with N, not with N².

    With `keys` the result is scaled so that its mean over the processes is the loss of the
    global batch, whichever process the rows without positives are in.

    Args:
        z_ND: Projections of the anchors; need not be normalised.
        groups_N: Whole numbers; rows of equal group are each other's positives (`view_groups`).
        loss: One of `LOSSES`.
        temperature: Divides the cosine similarities; above 0.
        keys: What to compare with; the anchors themselves when left out.
        chunk_elements: Most logits to hold at once.

    Raises:
        ValueError: loss or temperature is not allowed.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss: found {loss!r}, allowed are {', '.join(LOSSES)}")
    if temperature <= 0:
        raise ValueError(f"temperature: found {temperature}, it must be above 0")
    with torch.autocast(z_ND.device.type, enabled=False):
        anchors_ND: Tensor = _Directions.apply(_precise(z_ND))
        keys_MD = anchors_ND if keys is None else _Directions.apply(_precise(keys.z_MD))
        groups_M = (groups_N if keys is None else keys.groups_M).to(z_ND.device)
        offset = 0 if keys is None else keys.offset
        pairs = Pairs(groups_M)
        weights_M = _pair_weights(pairs, loss, anchors_ND.dtype)
        comparison = _Comparison(
            loss=loss,
            temperature=temperature,
            pairs=pairs,
            pair_weights_N=weights_M[offset : offset + len(z_ND)] * len(groups_M) / len(z_ND),
            offset=offset,
            chunk=max(1, chunk_elements // len(groups_M)),
        )
        mean: Tensor = _ContrastiveLoss.apply(anchors_ND, keys_MD, comparison)
    return mean


def nt_xent(z_VBD: Tensor, *, temperature: float) -> Tensor:
    """NT-Xent of V views of each of B images; scalar mean over all pairs of views.

    Raises:
        ValueError: Fewer than two views or two images.
    """
    views, batch, _ = z_VBD.shape
    if views < 2 or batch < 2:
        raise ValueError(f"found {views} views of {batch} images, at least 2 of 2 are needed")
    groups_N = view_groups(batch, views)
    return contrastive_loss(z_VBD.flatten(0, 1), groups_N, loss="nt_xent", temperature=temperature)


def chance_loss(*, views: int, batch_size: int, loss: str = "nt_xent") -> float:
    """The loss of an encoder that has learnt nothing: equal projections, no labels."""
    negatives = views * (batch_size - 1)
    against = {"nt_xent": 1 + negatives, "supcon": views - 1 + negatives, "dcl": negatives}
    return math.log(against[loss])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Comparison:
    """What the loss needs beside projections; anchor i is key offset + i."""

    loss: str
    temperature: float
    pairs: Pairs
    pair_weights_N: Tensor
    offset: int
    chunk: int


class _ContrastiveLoss(torch.autograd.Function):
    """Sum over all anchors and their positives of pair weight times loss."""

    @staticmethod
    def forward(ctx: Any, anchors_ND: Tensor, keys_MD: Tensor, comparison: _Comparison) -> Tensor:
        scaled_ND = anchors_ND / comparison.temperature
        total = scaled_ND.new_zeros(())
        anchor_grads_ND, key_grads_MD = torch.empty_like(anchors_ND), torch.zeros_like(keys_MD)
        logits_CM = scaled_ND.new_empty(min(comparison.chunk, len(scaled_ND)), len(keys_MD))
        for first in range(0, len(scaled_ND), comparison.chunk):
            rows = slice(first, first + comparison.chunk)
            logits_CM = logits_CM[: len(scaled_ND[rows])]
            torch.mm(scaled_ND[rows], keys_MD.T, out=logits_CM)
            total += _compare_(logits_CM, first, comparison)
            torch.mm(logits_CM, keys_MD, out=anchor_grads_ND[rows])
            key_grads_MD.addmm_(logits_CM.T, scaled_ND[rows])
        ctx.save_for_backward(anchor_grads_ND.div_(comparison.temperature), key_grads_MD)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        anchor_grads_ND, key_grads_MD = ctx.saved_tensors
        return grad * anchor_grads_ND, grad * key_grads_MD, None


class _Directions(torch.autograd.Function):
    """Rows of length one; as `functional.normalize`, but in one node and for rows of any length."""

    @staticmethod
    def forward(ctx: Any, z_ND: Tensor) -> Tensor:
        # The square of a large value would be infinite in float32.
        scales_N1 = z_ND.abs().amax(dim=1, keepdim=True).clamp_min_(1)
        scaled_ND = z_ND / scales_N1
        lengths_N1 = scaled_ND.norm(dim=1, keepdim=True).clamp_min_(1e-12)
        units_ND = scaled_ND.div_(lengths_N1)
        ctx.save_for_backward(units_ND, lengths_N1.mul_(scales_N1))
        return units_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> Tensor:
        units_ND, lengths_N1 = ctx.saved_tensors
        along_N1 = (grad_ND * units_ND).sum(dim=1, keepdim=True)
        across: Tensor = torch.addcmul(grad_ND, units_ND, along_N1, value=-1).div_(lengths_N1)
        return across


def _precise(z_ND: Tensor) -> Tensor:
    return z_ND if z_ND.dtype == torch.float64 else z_ND.float()


def _compare_(logits_CM: Tensor, first: int, comparison: _Comparison) -> Tensor:
    """Loss of the anchors from `first` on; their logits become its derivative by them.

    A positive pulls with its weight, in nt_xent the less the nearer it is. All that an anchor is
    set against pushes it as hard as its positives pull, shared out by softmax.
    """
    count, own = len(logits_CM), comparison.offset + first
    pairs_P = comparison.pairs.of(own, count)
    anchors_P, _ = pairs_P
    positives_P = logits_CM[pairs_P]
    logits_CM.diagonal(own).fill_(-torch.inf)
    if comparison.loss != "supcon":
        logits_CM[pairs_P] = -torch.inf
    margins_P = _softmax_(logits_CM)[anchors_P] - positives_P
    weights_P = comparison.pair_weights_N[first : first + count][anchors_P]
    losses_P, pulls_P = margins_P, weights_P
    if comparison.loss == "nt_xent":
        # −log e^p / (e^p + e^n) = softplus(n − p), which neither overflows nor cancels.
        losses_P, pulls_P = functional.softplus(margins_P), weights_P * margins_P.sigmoid()
    pushes_C = pulls_P.new_zeros(count).index_add_(0, anchors_P, pulls_P)
    logits_CM.mul_(pushes_C[:, None])
    logits_CM[pairs_P] -= pulls_P
    return losses_P.dot(weights_P)


def _softmax_(logits_CM: Tensor) -> Tensor:
    """Softmax of each row in place, and their log-sum-exp; zeros if a row is all −inf."""
    peaks_C = logits_CM.amax(dim=1).clamp_min_(torch.finfo(logits_CM.dtype).min)
    sums_C = logits_CM.sub_(peaks_C[:, None]).exp_().sum(dim=1).clamp_min_(1)
    logits_CM.div_(sums_C[:, None])
    return peaks_C + sums_C.log()


def _pair_weights(pairs: Pairs, loss: str, dtype: torch.dtype) -> Tensor:
    """Weight of each pair of anchor and positive in the mean over all anchors, by anchor."""
    positives_M = pairs.sizes_M - 1
    counted_M = positives_M > 0
    if loss == "dcl":
        counted_M &= pairs.sizes_M < len(pairs.sizes_M)
    weights_M: Tensor = counted_M.to(dtype) / (positives_M * counted_M.sum()).clamp_min(1)
    return weights_M
