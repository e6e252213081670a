"""All operations on one view after the other, compiled for this CPU.

PyTorch's operations pass the whole batch through memory each and hand the interpreter's lock from
thread to thread; here a view stays in the cache of a core from the crop to its solarisation, and
several threads meet nobody. The results are those of the operations (`augment` with
`compiled=False`) but for rounding. `machine_code.py` loads it, when it is first needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from core.learning.augmentations.orders import Flags, Floats, Indices

Bytes = NDArray[np.uint8]
Ordered = tuple[Indices, Floats, Indices, Floats, Floats, Floats, Floats, Flags]
Places = tuple[NDArray[np.uint32], NDArray[np.uint32], Floats]
Function = TypeVar("Function", bound=Callable[..., object])

# What the compiler takes from here it keeps as it is: nothing that another module may change.
ZERO, HALF, ONE, LEVELS = np.float32(0), np.float32(0.5), np.float32(1), np.float32(255)
# Sums in another order and products with additions in one; divisions stay divisions.
REORDERED = {"contract", "ninf", "nnan", "nsz", "reassoc"}


def compiled(function: Function, *, keep: bool = False) -> Function:
    """Machine code that needs no interpreter's lock, perhaps kept for the next process."""
    made = numba.njit(function, nogil=True, fastmath=REORDERED, error_model="numpy", cache=keep)
    return cast("Function", made)


def make_views(
    images_BHWC: Bytes,
    orders: Ordered,
    luma_C: Floats,
    threshold: np.float32,
    statistics_2C: Floats,
    out_NCHW: Floats,
) -> None:
    """Write N views.

    Args:
        images_BHWC: Square canvases.
        orders: `Orders` as a plain tuple: code that is kept may name no class of ours.
        luma_C: What each channel contributes to a pixel's luma.
        threshold: From which value on solarisation inverts.
        statistics_2C: Mean and standard deviation to standardise each channel by; none leaves
            the values in [0, 1].
        out_NCHW: Where to.
    """
    sources_N, crops_N4, turns_N, maps_N23, matrix_NCC, lift_N, weights_NR, solarized_N = orders
    count, channels, size, _ = out_NCHW.shape
    columns = np.empty(size, np.uint32), np.empty(size, np.uint32), np.empty(size, np.float32)
    lines = np.empty(size, np.uint32), np.empty(size, np.uint32), np.empty(size, np.float32)
    rows_2CS = np.empty((2, channels, size), np.float32)
    turned_CSS = np.empty((channels, size, size), np.float32)
    padded_W = np.empty(size + 2 * weights_NR.shape[1], np.float32)
    for n in range(count):
        image_HWC, view_CHW = images_BHWC[sources_N[n]], out_NCHW[n]
        if len(maps_N23) > 0:
            _transform(image_HWC, maps_N23[n], view_CHW)
        else:
            _axis(crops_N4[n, 0], crops_N4[n, 2], columns)
            _axis(crops_N4[n, 1], crops_N4[n, 3], lines)
            seen_CHW = turned_CSS if turns_N[n] > 0 else view_CHW
            _crop(image_HWC, columns, lines, rows_2CS, seen_CHW)
            _turn(seen_CHW, turns_N[n], view_CHW)
        _recolour(view_CHW, matrix_NCC[n : n + 1], lift_N[n : n + 1], luma_C)
        _blur(view_CHW, weights_NR[n], turned_CSS[0], padded_W)
        _finish(view_CHW, solarized_N[n], threshold, statistics_2C)


@compiled
def _axis(centre: float, scale: float, found: Places) -> None:
    """Along one axis: the two pixels around each place of the view, and how near the second is."""
    first_S, second_S, share_S = found
    size = len(first_S)
    middle = np.float32(size * HALF - HALF)
    shift = np.float32(centre) * np.float32(size * HALF) + middle
    last = np.float32(size - 1)
    for j in range(size):
        place = min(max((np.float32(j) - middle) * np.float32(scale) + shift, ZERO), last)
        pixel = int(place)
        first_S[j] = pixel
        second_S[j] = min(pixel + 1, size - 1)
        share_S[j] = place - np.float32(pixel)


@compiled
def _crop(
    image_HWC: Bytes, columns: Places, lines: Places, rows_2CS: Floats, out_CHW: Floats
) -> None:
    """Bilinear interpolation is separable: along lines of the image, then between two of them.

    A crop is as a rule enlarged, so neighbouring lines of the view lie between the same two of
    the image: these two are kept.
    """
    channels, size, _ = out_CHW.shape
    upper_S, lower_S, down_S = lines
    kept_even, kept_odd = -1, -1
    for i in range(size):
        upper, lower, down = upper_S[i], lower_S[i], down_S[i]
        for line in (upper, lower):
            if line % 2 == 0 and line != kept_even:
                _along(image_HWC[line], columns, rows_2CS[0])
                kept_even = line
            elif line % 2 == 1 and line != kept_odd:
                _along(image_HWC[line], columns, rows_2CS[1])
                kept_odd = line
        for c in range(channels):
            above_S, below_S, out_S = rows_2CS[upper % 2, c], rows_2CS[lower % 2, c], out_CHW[c, i]
            for j in range(size):
                out_S[j] = above_S[j] + (below_S[j] - above_S[j]) * down


@compiled
def _along(line_SC: Bytes, columns: Places, out_CS: Floats) -> None:
    left_S, right_S, across_S = columns
    for c in range(len(out_CS)):
        out_S = out_CS[c]
        for j in range(len(out_S)):
            before, after = np.float32(line_SC[left_S[j], c]), np.float32(line_SC[right_S[j], c])
            out_S[j] = before + (after - before) * across_S[j]


@compiled
def _turn(views_CHW: Floats, turns: int, out_CHW: Floats) -> None:
    """As `torch.rot90` over the last two axes."""
    if turns == 0:
        return  # it is in its place already
    channels, size, _ = out_CHW.shape
    for c in range(channels):
        for i in range(size):
            for j in range(size):
                if turns == 1:
                    out_CHW[c, i, j] = views_CHW[c, j, size - 1 - i]
                elif turns == 2:
                    out_CHW[c, i, j] = views_CHW[c, size - 1 - i, size - 1 - j]
                else:
                    out_CHW[c, i, j] = views_CHW[c, size - 1 - j, i]


@compiled
def _transform(image_HWC: Bytes, map_23: Floats, out_CHW: Floats) -> None:
    """Any affine map, as `grid_sample` with a border that repeats."""
    channels, size, _ = out_CHW.shape
    half, last = np.float32(size * HALF), np.float32(size - 1)
    for i in range(size):
        down = (np.float32(2 * i + 1)) / np.float32(size) - ONE
        for j in range(size):
            across = (np.float32(2 * j + 1)) / np.float32(size) - ONE
            x = map_23[0, 0] * across + map_23[0, 1] * down + map_23[0, 2]
            y = map_23[1, 0] * across + map_23[1, 1] * down + map_23[1, 2]
            x = min(max((x + ONE) * half - HALF, ZERO), last)
            y = min(max((y + ONE) * half - HALF, ZERO), last)
            left, top = np.int32(x), np.int32(y)
            right, bottom = min(left + 1, size - 1), min(top + 1, size - 1)
            across_share, down_share = x - np.float32(left), y - np.float32(top)
            for c in range(channels):
                above = np.float32(image_HWC[top, left, c])
                above += (np.float32(image_HWC[top, right, c]) - above) * across_share
                below = np.float32(image_HWC[bottom, left, c])
                below += (np.float32(image_HWC[bottom, right, c]) - below) * across_share
                out_CHW[c, i, j] = above + (below - above) * down_share


@compiled
def _recolour(view_CHW: Floats, matrix_NCC: Floats, lift_N: Floats, luma_C: Floats) -> None:
    """Levels to values, with the first of the colours if there are any."""
    if len(matrix_NCC) == 0:
        _relight(view_CHW, ONE, ZERO)
    elif len(view_CHW) == 3:
        _mix(view_CHW, matrix_NCC[0], lift_N[0], luma_C)
    else:
        _relight(view_CHW, matrix_NCC[0, 0, 0], lift_N[0])


@compiled
def _mix(view_CHW: Floats, matrix_CC: Floats, lift: float, luma_C: Floats) -> None:
    """The matrix, and a share of the view's mean luma."""
    pixels = view_CHW.shape[1] * view_CHW.shape[2]
    planes_CP = view_CHW.reshape(3, pixels)
    red_P, green_P, blue_P = planes_CP[0], planes_CP[1], planes_CP[2]
    reds, greens, blues = ZERO, ZERO, ZERO
    for p in range(pixels):
        reds += red_P[p]
        greens += green_P[p]
        blues += blue_P[p]
    luma = (luma_C[0] * reds + luma_C[1] * greens + luma_C[2] * blues) / np.float32(pixels)
    offset = luma * np.float32(lift) / LEVELS
    m = matrix_CC / LEVELS
    a, b, c, d, e, f = m[0, 0], m[0, 1], m[0, 2], m[1, 0], m[1, 1], m[1, 2]
    g, h, i = m[2, 0], m[2, 1], m[2, 2]
    for p in range(pixels):
        red, green, blue = red_P[p], green_P[p], blue_P[p]
        red_P[p] = min(max(a * red + b * green + c * blue + offset, ZERO), ONE)
        green_P[p] = min(max(d * red + e * green + f * blue + offset, ZERO), ONE)
        blue_P[p] = min(max(g * red + h * green + i * blue + offset, ZERO), ONE)


@compiled
def _relight(view_CHW: Floats, factor: np.float32, lift: np.float32) -> None:
    """`_mix` of a view of one channel."""
    values_P = view_CHW.reshape(view_CHW.size)
    total = ZERO
    for p in range(len(values_P)):
        total += values_P[p]
    offset = total / np.float32(len(values_P)) * lift / LEVELS
    for p in range(len(values_P)):
        values_P[p] = min(max(factor * values_P[p] / LEVELS + offset, ZERO), ONE)


@compiled
def _blur(view_CHW: Floats, weights_R: Floats, lines_HW: Floats, padded_W: Floats) -> None:
    reach = len(weights_R) - 1
    while reach > 0 and weights_R[reach] == ZERO:
        reach -= 1
    if reach > 0:
        for c in range(len(view_CHW)):
            _blur_plane(view_CHW[c], weights_R[: reach + 1], lines_HW, padded_W)


@compiled
def _blur_plane(plane_HW: Floats, weights_R: Floats, lines_HW: Floats, padded_W: Floats) -> None:
    """Separable, in place: a weighted sum of lines, then along each; the border repeats.

    Two distances at once, which halves the way to memory and back; the last may be alone. In a
    function of its own the inner loop would take double the time.
    """
    size, reach = len(plane_HW), len(weights_R) - 1
    margin = reach + 1
    for i in range(size):
        line_W, middle_W = lines_HW[i], plane_HW[i]
        for j in range(size):
            line_W[j] = middle_W[j] * weights_R[0]
        for k in range(1, reach + 1, 2):
            near_weight, far_weight = weights_R[k], weights_R[k + 1] if k < reach else ZERO
            upper_W, lower_W = plane_HW[max(i - k, 0)], plane_HW[min(i + k, size - 1)]
            top_W, bottom_W = plane_HW[max(i - k - 1, 0)], plane_HW[min(i + k + 1, size - 1)]
            for j in range(size):
                near, far = upper_W[j] + lower_W[j], top_W[j] + bottom_W[j]
                line_W[j] += near_weight * near + far_weight * far
    for i in range(size):
        line_W, out_W = lines_HW[i], plane_HW[i]
        _pad(line_W, margin, padded_W)
        for j in range(size):
            out_W[j] = line_W[j] * weights_R[0]
        for k in range(1, reach + 1, 2):
            near_weight, far_weight = weights_R[k], weights_R[k + 1] if k < reach else ZERO
            left_W, right_W = padded_W[margin - k :], padded_W[margin + k :]
            first_W, last_W = padded_W[margin - k - 1 :], padded_W[margin + k + 1 :]
            for j in range(size):
                near, far = left_W[j] + right_W[j], first_W[j] + last_W[j]
                out_W[j] += near_weight * near + far_weight * far
        for j in range(size):
            out_W[j] = min(max(out_W[j], ZERO), ONE)


@compiled
def _pad(line_W: Floats, margin: int, padded_W: Floats) -> None:
    for j in range(len(line_W) + 2 * margin):
        padded_W[j] = line_W[min(max(j - margin, 0), len(line_W) - 1)]


@compiled
def _finish(
    view_CHW: Floats, solarized: bool, threshold: np.float32, statistics_2C: Floats
) -> None:
    if solarized:
        _solarize(view_CHW, threshold)
    if len(statistics_2C) > 0:
        _standardise(view_CHW, statistics_2C)


@compiled
def _solarize(view_CHW: Floats, threshold: np.float32) -> None:
    """Invert every value that reaches the threshold."""
    values_P = view_CHW.reshape(view_CHW.size)
    for p in range(len(values_P)):
        value = values_P[p]
        values_P[p] = ONE - value if value >= threshold else value


@compiled
def _standardise(view_CHW: Floats, statistics_2C: Floats) -> None:
    for c in range(len(view_CHW)):
        mean, deviation = statistics_2C[0, c], statistics_2C[1, c]
        values_P = view_CHW[c].reshape(view_CHW[c].size)
        for p in range(len(values_P)):
            values_P[p] = (values_P[p] - mean) / deviation
