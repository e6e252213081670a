"""Crops, turns and mirrors against slow loops, torchvision and exact permutations."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from core.learning.augmentations import AugmentationConfig
from core.learning.augmentations.machine_code import kernel
from core.learning.augmentations.moves import Moves, draw_moves
from core.learning.augmentations.orders import Orders
from core.learning.augmentations.resampling import by_grid, by_products
from tests.unit.learning.augmentation_samples import (
    as_floats,
    one_view,
    rough_images,
    smooth_images,
)

CROPS = AugmentationConfig(
    crop_area=(0.1, 1.0),
    crop_ratio=4 / 3,
    flip=0.5,
    vertical_flip=0.5,
    quarter_turns=True,
)
SIZES = [8, 33, 64]


def moves_of(count: int, **changed: float) -> Moves:
    """The same moves for all: nothing, but for what is named."""
    still = {"width_N": 1.0, "height_N": 1.0, "mirror_x_N": 1.0, "mirror_y_N": 1.0}
    names = ("centre_x_N", "centre_y_N", "angle_N", "slope_N")
    values = {**still, **dict.fromkeys(names, 0.0), **changed}
    turns = torch.full((count,), int(values.pop("turns_N", 0)))
    return Moves(**{n: torch.full((count,), v) for n, v in values.items()}, turns_N=turns)


def on_grid(images_BHWC: Tensor, sources_N: Tensor, moves: Moves) -> Tensor:
    return by_grid(images_BHWC, sources_N, moves.maps())


def in_the_kernel(images_BHWC: Tensor, sources_N: Tensor, moves: Moves) -> Tensor:
    count, size = len(sources_N), images_BHWC.shape[1]
    no_floats = np.empty((0, 0, 0), np.float32)
    orders = Orders(
        sources_N=sources_N.numpy(),
        crops_N4=torch.stack(moves.crops(), dim=-1).numpy(),
        turns_N=moves.turns_N.numpy(),
        maps_N23=no_floats,
        matrix_NCC=no_floats,
        lift_N=np.empty(0, np.float32),
        weights_NR=np.ones((count, 1), np.float32),
        solarized_N=np.zeros(count, np.bool_),
    )
    values = np.empty((count, images_BHWC.shape[3], size, size), np.float32)
    luma, no_statistics = np.ones(3, np.float32), np.empty((0, 0), np.float32)
    every = orders.part(slice(None))
    kernel()(images_BHWC.numpy(), every, luma, np.float32(0.5), no_statistics, values)
    return torch.from_numpy(values) * 255


WAYS: dict[str, Callable[[Tensor, Tensor, Moves], Tensor]] = {
    "grid": on_grid,
    "products": by_products,
    "kernel": in_the_kernel,
}


def bilinear(image_HWC: Tensor, x: float, y: float, bounds: tuple[float, ...]) -> list[float]:
    """One pixel in float64; positions outside the bounds are moved to them."""
    left, right, top, bottom = bounds
    x, y = min(max(x, left), right), min(max(y, top), bottom)
    x0, y0 = math.floor(x), math.floor(y)
    x1, y1 = min(x0 + 1, int(right)), min(y0 + 1, int(bottom))
    mixed = []
    for channel in range(image_HWC.shape[2]):
        value = {(i, j): float(image_HWC[j, i, channel]) for i in (x0, x1) for j in (y0, y1)}
        upper = value[x0, y0] * (1 - (x - x0)) + value[x1, y0] * (x - x0)
        lower = value[x0, y1] * (1 - (x - x0)) + value[x1, y1] * (x - x0)
        mixed.append(upper * (1 - (y - y0)) + lower * (y - y0))
    return mixed


def slow_view(image_HWC: Tensor, moves: Moves, row: int) -> Tensor:
    """A crop of one image, pixel for pixel, then mirrored, then turned."""
    size = image_HWC.shape[0]
    spans = []
    for centre_N, share_N in (
        (moves.centre_x_N, moves.width_N),
        (moves.centre_y_N, moves.height_N),
    ):
        length = float(share_N[row]) * size
        first = (float(centre_N[row]) + 1) * size / 2 - length / 2
        spans.append((first, length))
    (left, width), (top, height) = spans
    bounds = (0.0, size - 1.0, 0.0, size - 1.0)
    view = torch.zeros(image_HWC.shape[2], size, size, dtype=torch.float64)
    for j in range(size):
        for i in range(size):
            x = left + (i + 0.5) * width / size - 0.5
            y = top + (j + 0.5) * height / size - 0.5
            view[:, j, i] = torch.tensor(bilinear(image_HWC, x, y, bounds))
    if moves.mirror_x_N[row] < 0:
        view = view.flip(2)
    if moves.mirror_y_N[row] < 0:
        view = view.flip(1)
    return view.rot90(int(moves.turns_N[row]), (1, 2))


@pytest.mark.parametrize("size", [8, 13])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_equals_the_slow_loop(way: str, channels: int, size: int) -> None:
    images = rough_images(3, size, channels)
    moves = draw_moves(24, CROPS, torch.Generator().manual_seed(1))
    sources = torch.arange(24) % 3
    views = WAYS[way](images, sources, moves)
    assert set(moves.turns_N.tolist()) == {0, 1, 2, 3}
    for row in range(24):
        expected = slow_view(images[int(sources[row])], moves, row)
        torch.testing.assert_close(views[row].double(), expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_the_ways_agree_on_smooth_images(size: int) -> None:
    images = smooth_images(4, size, 3)
    moves = draw_moves(64, CROPS, torch.Generator().manual_seed(0))
    sources = torch.arange(64) % 4
    grid = on_grid(images, sources, moves)
    for way in (by_products, in_the_kernel):
        torch.testing.assert_close(way(images, sources, moves), grid, atol=0.05, rtol=0)


@pytest.mark.parametrize("way", ["products", "kernel"])
@pytest.mark.parametrize("size", [8, 64])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("mirrors", [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)])
def test_turns_and_mirrors_are_exact_permutations(
    way: str, size: int, turns: int, mirrors: tuple[float, float]
) -> None:
    images = rough_images(2, size, 3)
    moves = moves_of(2, turns_N=turns, mirror_x_N=mirrors[0], mirror_y_N=mirrors[1])
    axes = [axis for axis, sign in zip((3, 2), mirrors, strict=True) if sign < 0]
    expected = images.permute(0, 3, 1, 2).float().flip(axes).rot90(turns, (2, 3))
    moved = WAYS[way](images, torch.arange(2), moves)
    assert torch.equal(moved / 255, expected / 255)
    on_a_grid = on_grid(images, torch.arange(2), moves)
    torch.testing.assert_close(on_a_grid, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("way", WAYS)
def test_crop_equals_resized_crop(way: str) -> None:
    size, images = 32, smooth_images(1, 32, 3)
    moves = moves_of(1, width_N=0.5, height_N=0.5, centre_x_N=-0.5, centre_y_N=-0.5)
    pixels = images.permute(0, 3, 1, 2).float()
    half = size // 2
    expected = reference.resized_crop(pixels, 0, 0, half, half, [size, size], antialias=False)
    # The last row and column differ where torchvision cuts before it interpolates.
    views = WAYS[way](images, torch.tensor([0]), moves)
    torch.testing.assert_close(views[..., :-1, :-1], expected[..., :-1, :-1], atol=0.01, rtol=0)


@pytest.mark.parametrize("angle", [-30.0, 10.0, 45.0])
def test_rotation_equals_torchvision(angle: float) -> None:
    images = smooth_images(1, 33, 3)
    rotated = on_grid(images, torch.tensor([0]), moves_of(1, angle_N=math.radians(angle)))
    # Positive angles turn our sampling grid, and so the picture the other way.
    mode = reference.InterpolationMode.BILINEAR
    expected = reference.rotate(images.permute(0, 3, 1, 2).float(), angle, interpolation=mode)
    inner = slice(10, 23)
    torch.testing.assert_close(
        rotated[..., inner, inner], expected[..., inner, inner], atol=0.03, rtol=0
    )


def test_shear_moves_rows_sideways() -> None:
    images = torch.zeros(1, 9, 9, 1, dtype=torch.uint8)
    images[:, :, 4] = 255
    sheared = on_grid(images, torch.tensor([0]), moves_of(1, slope_N=0.5))[0, 0]
    assert [int(row.argmax()) for row in sheared[::2]] == [6, 5, 4, 3, 2]


def test_crops_cover_the_wanted_areas_and_stay_inside() -> None:
    config = AugmentationConfig(crop_area=(0.2, 1.0), crop_ratio=4 / 3)
    moves = draw_moves(4000, config, torch.Generator().manual_seed(0))
    width, height = moves.width_N, moves.height_N
    area = width * height
    assert area.min() >= 0.19
    assert area.max() <= 1
    assert area.mean() == pytest.approx(0.59, abs=0.03)
    assert ((moves.centre_x_N.abs() + width) <= 1 + 1e-6).all()
    assert ((moves.centre_y_N.abs() + height) <= 1 + 1e-6).all()
    assert (width / height).max() <= 4 / 3 + 1e-5
    assert (height / width).max() <= 4 / 3 + 1e-5


def test_mirrors_and_turns_come_as_often_as_asked() -> None:
    config = AugmentationConfig(flip=0.3, vertical_flip=0.6, quarter_turns=True)
    moves = draw_moves(4000, config, torch.Generator().manual_seed(0))
    mirrored_x, mirrored_y = moves.mirror_x_N < 0, moves.mirror_y_N < 0
    assert mirrored_x.float().mean() == pytest.approx(0.3, abs=0.03)
    assert mirrored_y.float().mean() == pytest.approx(0.6, abs=0.03)
    assert (mirrored_x & mirrored_y).float().mean() == pytest.approx(0.18, abs=0.03)
    shares = moves.turns_N.bincount(minlength=4) / 4000
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.03)
    still = draw_moves(100, AugmentationConfig(), torch.Generator().manual_seed(0))
    assert still.turns_N.any() == 0
    assert (still.mirror_x_N > 0).all()
    assert (still.mirror_y_N > 0).all()


@pytest.mark.parametrize("way", WAYS)
def test_zooming_out_repeats_the_border(way: str) -> None:
    images = torch.full((1, 16, 16, 1), 200, dtype=torch.uint8)
    images[:, 1:-1, 1:-1] = 100
    moves = moves_of(1, width_N=2.0, height_N=2.0)
    zoomed = WAYS[way](images, torch.tensor([0]), moves)[0, 0]
    outside = torch.ones(16, 16, dtype=torch.bool)
    outside[4:12, 4:12] = False
    torch.testing.assert_close(zoomed[outside], torch.full((192,), 200.0), atol=0.01, rtol=0)
    assert (zoomed[5:11, 5:11] - 100).abs().max() < 0.01


@pytest.mark.parametrize("size", [16, 64])
def test_a_large_crop_area_zooms_out(size: int) -> None:
    images = torch.full((50, size, size, 1), 200, dtype=torch.uint8)
    images[:, 1:-1, 1:-1] = 0
    zoomed = one_view(images, AugmentationConfig(crop_area=(4.0, 4.0)))
    # A quarter of each view is the image, wherever it lies.
    assert (zoomed < 0.2).float().mean() == pytest.approx(0.25 * (1 - 2 / size) ** 2, abs=0.05)


@pytest.mark.parametrize("size", [16, 64])
def test_flip_is_a_mirror(size: int) -> None:
    images = rough_images(3, size, 3)
    assert torch.equal(one_view(images, AugmentationConfig(flip=1.0)), as_floats(images).flip(-1))
    upside_down = one_view(images, AugmentationConfig(vertical_flip=1.0))
    assert torch.equal(upside_down, as_floats(images).flip(-2))
