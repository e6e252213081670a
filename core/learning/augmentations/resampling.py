"""Two ways to carry moves out; benchmarks/crop_ways.py compares them with others."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from core.learning.augmentations.config import AugmentationConfig
from core.learning.augmentations.moves import Moves

PRODUCTS_PIXELS = 40  # measured (docs/benchmarks-crops.md): up to here products are faster


def warp(
    images_BHWC: Tensor, sources_N: Tensor, moves: Moves, config: AugmentationConfig
) -> Tensor:
    """What the moves see of the images that they belong to.

    Two ways lead there, each the faster where it is taken. Both interpolate bilinearly; a canvas is
    as large as its views, so a crop is enlarged and needs no antialiasing.

    Args:
        images_BHWC: uint8, square.
        sources_N: Image of each view, int64.
        moves: One for each view, drawn for this `config`.
        config: Says what the moves cannot contain, and so which way may be taken.

    Returns:
        Levels from 0 to 255 as float32, (N, C, S, S), contiguous.
    """
    size = images_BHWC.shape[1]
    if size <= PRODUCTS_PIXELS and not config.tilts:
        return by_products(images_BHWC, sources_N, moves)
    return by_grid(images_BHWC, sources_N, moves.maps())


def by_grid(images_BHWC: Tensor, sources_N: Tensor, maps_N23: Tensor) -> Tensor:
    """Any affine map; outside of the image its border is repeated. Levels, (N, C, S, S)."""
    levels_NCHW = planes(images_BHWC[sources_N])
    grid_NHW2 = functional.affine_grid(maps_N23, list(levels_NCHW.shape), align_corners=False)
    return functional.grid_sample(
        levels_NCHW, grid_NHW2, padding_mode="border", align_corners=False
    )


def by_products(images_BHWC: Tensor, sources_N: Tensor, moves: Moves) -> Tensor:
    """Bilinear interpolation is separable: a matrix for the columns, another for the rows.

    The cost grows with the cube of the side, the fixed cost is the lowest: for small images.
    """
    levels_NCHW = planes(images_BHWC[sources_N])
    count, channels, size, _ = levels_NCHW.shape
    centre_x_N, centre_y_N, width_N, height_N = moves.crops()
    columns_NSS = _weights(centre_x_N, width_N, size)
    rows_NSS = _weights(centre_y_N, height_N, size)
    flat = levels_NCHW.view(count, channels * size, size)
    narrowed = torch.bmm(flat, columns_NSS.transpose(1, 2)).view(count, channels, size, size)
    views_NCHW = rows_NSS[:, None] @ narrowed
    for turns in range(1, 4):
        turned = (moves.turns_N == turns).nonzero().flatten()
        if len(turned):
            views_NCHW[turned] = views_NCHW[turned].rot90(turns, (2, 3))
    return views_NCHW


def planes(images_BHWC: Tensor) -> Tensor:
    """Levels from 0 to 255 as float32, one plane a channel; contiguous, (B, C, H, W)."""
    return images_BHWC.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)


def _weights(centre_N: Tensor, scale_N: Tensor, size: int) -> Tensor:
    """Row i holds what every pixel of the image contributes to pixel i of the view."""
    pixel_S = torch.arange(size, device=centre_N.device, dtype=torch.float32)
    # Counted from the middle of the image: without a crop all positions are whole numbers.
    middle = size / 2 - 0.5
    offset_NS = (pixel_S - middle) * scale_N[:, None]
    position_NS = (offset_NS + (centre_N * (size / 2) + middle)[:, None]).clamp_(0, size - 1)
    distance_NSS = (position_NS[:, :, None] - pixel_S).abs_()
    return distance_NSS.neg_().add_(1).relu_()
