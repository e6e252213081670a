"""Three ways to carry moves out; benchmarks/crop_ways.py compares them with others."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from core.learning.augmentations.config import AugmentationConfig
from core.learning.augmentations.moves import Moves

PRODUCTS_PIXELS = (
    40  # measured (docs/benchmarks-crops.md): up to here the products are the fastest way
)


def warp(
    images_BHWC: Tensor, sources_N: Tensor, moves: Moves, config: AugmentationConfig
) -> Tensor:
    """What the moves see of the images that they belong to.

    Three ways lead there, each the fastest where it is taken. All interpolate bilinearly; a
    canvas is as large as its views, so a crop is enlarged and needs no antialiasing.

    Args:
        images_BHWC: uint8, square.
        sources_N: Image of each view, int64.
        moves: One for each view, drawn for this `config`.
        config: Says what the moves cannot contain, and so which way may be taken.

    Returns:
        Levels from 0 to 255 as float32, (N, C, S, S), contiguous.
    """
    size = images_BHWC.shape[1]
    if config.rotation > 0 or config.shear > 0:
        return by_grid(images_BHWC, sources_N, moves.maps())
    if size <= PRODUCTS_PIXELS:
        return by_products(images_BHWC, sources_N, moves)
    if is_resized(images_BHWC, config):
        return by_resizing(images_BHWC, sources_N, moves)
    return by_grid(images_BHWC, sources_N, moves.maps())


def is_resized(images_BHWC: Tensor, config: AugmentationConfig) -> bool:
    """Whether `by_resizing` is the way for these images."""
    if config.rotation > 0 or config.shear > 0 or config.crop_area[1] > 1:
        return False
    return images_BHWC.shape[1] > PRODUCTS_PIXELS and images_BHWC.device.type == "cpu"


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
    columns_NSS = _weights(moves.centre_x_N, moves.width_N * moves.mirror_x_N, size)
    rows_NSS = _weights(moves.centre_y_N, moves.height_N * moves.mirror_y_N, size)
    flat = levels_NCHW.view(count, channels * size, size)
    narrowed = torch.bmm(flat, columns_NSS.transpose(1, 2)).view(count, channels, size, size)
    views_NCHW = rows_NSS[:, None] @ narrowed
    for turns in range(1, 4):
        turned = (moves.turns_N == turns).nonzero().flatten()
        if len(turned):
            views_NCHW[turned] = views_NCHW[turned].rot90(turns, (2, 3))
    return views_NCHW


def by_resizing(
    images_BHWC: Tensor, sources_N: Tensor, moves: Moves, *, out: Tensor | None = None
) -> Tensor:
    """Cut out whole pixels, let torch's kernel for bytes enlarge them, one view at a time.

    A call costs about 20 µs whatever the size, a pixel next to nothing: for large images on
    the CPU. Crops must lie within the image.

    Args:
        images_BHWC: As for `warp`; also the next two.
        sources_N: Image of each view.
        moves: One for each view.
        out: Where to leave the levels; None takes new memory.
    """
    size, channels = images_BHWC.shape[1], images_BHWC.shape[3]
    views_NCHW = torch.empty(len(sources_N), channels, size, size) if out is None else out
    lefts, widths = _whole_pixels(moves.centre_x_N, moves.width_N, size)
    tops, heights = _whole_pixels(moves.centre_y_N, moves.height_N, size)
    images_BCHW = images_BHWC.permute(0, 3, 1, 2)
    turns = moves.turns_N.tolist()
    mirrors = zip((moves.mirror_x_N < 0).tolist(), (moves.mirror_y_N < 0).tolist(), strict=True)
    for row, (source, (mirror_x, mirror_y)) in enumerate(
        zip(sources_N.tolist(), mirrors, strict=True)
    ):
        top, left = tops[row], lefts[row]
        cut_1CHW = images_BCHW[
            source : source + 1, :, top : top + heights[row], left : left + widths[row]
        ]
        view_1CHW = functional.interpolate(cut_1CHW, size=(size, size), mode="bilinear")
        mirrored = [axis for axis, is_so in ((3, mirror_x), (2, mirror_y)) if is_so]
        if mirrored:
            view_1CHW = view_1CHW.flip(mirrored)
        views_NCHW[row] = view_1CHW[0].rot90(turns[row], (1, 2)) if turns[row] else view_1CHW[0]
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


def _whole_pixels(centre_N: Tensor, share_N: Tensor, size: int) -> tuple[list[int], list[int]]:
    """First pixel and number of pixels along one axis."""
    length_N = (share_N * size).round().clamp(1, size)
    first_N = ((centre_N - share_N + 1) * (size / 2)).round().clamp(min=0)
    return torch.minimum(first_N, size - length_N).int().tolist(), length_N.int().tolist()
