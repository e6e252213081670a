"""Gaussian blur with a width for every sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from core.learning.augmentations.config import AugmentationConfig
from core.learning.augmentations.draws import chosen, uniform

REACH = 3.0  # standard deviations; what lies further weighs 0.3 %
PRODUCTS_PIXELS = 48  # up to here products are the faster way: four times at 32 px
# As many values as a core's cache holds next to their neighbours; a GPU wants few launches.
VALUES_AT_ONCE = {"cpu": 2**18}
VALUES_ELSEWHERE = 2**26


def draw_blur(count: int, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Random standard deviations in pixels; 0 where a view stays sharp; (count,)."""
    selected = chosen(count, config.blur, generator)
    return uniform(count, *config.blur_sigma, generator) * selected


def blur(views_NCHW: Tensor, sigma_N: Tensor) -> None:
    """Blur, in place, the views whose standard deviation is above 0."""
    count = int((sigma_N > 0).sum())
    if count == 0:
        return
    # Neighbours in this order need kernels of about the same length.
    order_N = sigma_N.argsort(descending=True, stable=True)[:count]
    limit = VALUES_AT_ONCE.get(views_NCHW.device.type, VALUES_ELSEWHERE)
    for rows in torch.split(order_N, max(1, limit // views_NCHW[0].numel())):
        if len(rows) == 1:  # large images: without copies to and fro
            _blur_all(views_NCHW[int(rows) : int(rows) + 1], sigma_N[rows])
        else:
            picked_NCHW = views_NCHW.index_select(0, rows)
            _blur_all(picked_NCHW, sigma_N[rows])
            views_NCHW.index_copy_(0, rows, picked_NCHW)


def _blur_all(views_NCHW: Tensor, sigma_N: Tensor) -> None:
    weight_NR = weights(sigma_N)
    if views_NCHW.shape[-1] <= PRODUCTS_PIXELS:
        _by_products(views_NCHW, weight_NR)
    else:
        _by_shifts(views_NCHW, weight_NR)
    views_NCHW.clamp_(0, 1)


def weights(sigma_N: Tensor) -> Tensor:
    """Weight of a pixel and of those at each distance from it, up to the widest blur's reach."""
    reach = math.ceil(REACH * float(sigma_N.max()))
    distance_R = torch.arange(reach + 1, device=sigma_N.device, dtype=torch.float32)
    sigma_N1 = sigma_N[:, None].clamp(min=torch.finfo(torch.float32).tiny)  # 0 weighs no other
    weight_NR = torch.exp(-0.5 * (distance_R / sigma_N1) ** 2)
    # A view's own reach, so that it does not matter which others it is blurred with.
    weight_NR *= distance_R <= (REACH * sigma_N1).ceil()
    return weight_NR / (2 * weight_NR.sum(dim=1, keepdim=True) - weight_NR[:, :1])


def _by_products(views_NCHW: Tensor, weight_NR: Tensor) -> None:
    """Separable: a matrix for the columns, and the same for the rows; the border repeats."""
    count, size = views_NCHW.shape[0], views_NCHW.shape[-1]
    pixel_S, reach = torch.arange(size, device=views_NCHW.device), weight_NR.shape[1] - 1
    shift_W = torch.arange(-reach, reach + 1, device=views_NCHW.device)
    seen_SW = (pixel_S[:, None] + shift_W).clamp(0, size - 1)
    blurred_NSS = views_NCHW.new_zeros(count, size, size)
    blurred_NSS.scatter_add_(
        2, seen_SW.expand(count, -1, -1), weight_NR[:, None, shift_W.abs()].expand(-1, size, -1)
    )
    rows_NCHW = torch.bmm(views_NCHW.flatten(1, 2), blurred_NSS.mT).view_as(views_NCHW)
    torch.matmul(blurred_NSS[:, None], rows_NCHW, out=views_NCHW)


def _by_shifts(views_NCHW: Tensor, weight_NR: Tensor) -> None:
    """Separable: a weighted sum of shifted rows, then of shifted columns."""
    reach = weight_NR.shape[1] - 1
    weight_RN111 = weight_NR.T[:, :, None, None, None].contiguous()
    for axis, padding in ((2, (0, 0, reach, reach)), (3, (reach, reach, 0, 0))):
        padded = functional.pad(views_NCHW, padding, mode="replicate")
        size = views_NCHW.shape[axis]
        torch.mul(padded.narrow(axis, reach, size), weight_RN111[0], out=views_NCHW)
        for step in range(1, reach + 1):
            views_NCHW.addcmul_(padded.narrow(axis, reach - step, size), weight_RN111[step])
            views_NCHW.addcmul_(padded.narrow(axis, reach + step, size), weight_RN111[step])
