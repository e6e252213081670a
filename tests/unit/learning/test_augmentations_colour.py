"""Colour, blur and solarisation against torchvision and slow loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from core.learning.augmentations import AugmentationConfig
from core.learning.augmentations.blur import blur, draw_blur
from core.learning.augmentations.colour import LUMA, draw_colours, hue_matrices, solarize
from tests.unit.learning.augmentation_samples import (
    as_floats,
    one_view,
    rough_images,
    smooth_images,
)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_jitter_equals_torchvision(name: str) -> None:
    images = smooth_images(1, 16, 3)
    config = AugmentationConfig.from_dict({"jitter": 1.0, name: 0.3})
    changed = one_view(images, config)
    operation = getattr(reference, f"adjust_{name}")
    # The factor is drawn: find it on a grid, then every pixel must agree.
    errors = [
        (operation(as_floats(images), factor / 1000) - changed).abs().max().item()
        for factor in range(700, 1301)
    ]
    assert min(errors) < 2e-3
    assert errors[300] > 2e-3  # a factor of one, that is no change, would not pass


def test_grey_is_luma() -> None:
    images = rough_images(2, 16, 3)
    grey = one_view(images, AugmentationConfig(grey=1.0))
    expected = reference.rgb_to_grayscale(as_floats(images), num_output_channels=3)
    torch.testing.assert_close(grey, expected, atol=2e-3, rtol=0)


def test_hue_keeps_greys_and_luma_and_turns_back() -> None:
    turn, back = torch.tensor([0.1, -0.3]), torch.tensor([-0.1, 0.3])
    there = hue_matrices(turn)
    torch.testing.assert_close(
        hue_matrices(back) @ there, torch.eye(3).expand(2, 3, 3), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(there.sum(-1), torch.ones(2, 3), atol=1e-5, rtol=0)
    luma = torch.tensor(LUMA)
    torch.testing.assert_close(luma @ there, luma.expand(2, 3), atol=1e-5, rtol=0)
    assert (there - torch.eye(3)).abs().max() > 0.3


def test_hue_and_saturation_leave_grey_images_grey() -> None:
    grey = rough_images(8, 16, 1).expand(-1, -1, -1, 3).contiguous()
    config = AugmentationConfig(jitter=1.0, hue=0.5, saturation=0.9)
    torch.testing.assert_close(one_view(grey, config), as_floats(grey), atol=1e-5, rtol=0)


def test_one_channel_has_brightness_and_contrast_as_grey_pixels_of_three_have() -> None:
    one = rough_images(8, 16, 1)
    config = AugmentationConfig(jitter=1.0, brightness=0.4, contrast=0.4)
    of_one = one_view(one, config)
    of_three = one_view(one.expand(-1, -1, -1, 3).contiguous(), config)
    torch.testing.assert_close(of_three, of_one.expand(-1, 3, -1, -1), atol=1e-5, rtol=0)
    assert (of_one - as_floats(one)).abs().max() > 0.05


def test_colour_comes_as_often_as_asked() -> None:
    config = AugmentationConfig(jitter=0.8, brightness=0.4, grey=0.2)
    colours = draw_colours(4000, 3, config, torch.Generator().manual_seed(0))
    assert colours is not None
    matrices = colours.matrix_NCC
    greyed = (matrices.diff(dim=1).abs() < 1e-6).all(dim=(1, 2))  # three equal rows
    assert greyed.float().mean() == pytest.approx(0.2, abs=0.03)
    kept = matrices[~greyed].diagonal(dim1=1, dim2=2).mean(dim=1)
    assert ((kept - 1).abs() > 1e-5).float().mean() == pytest.approx(0.8, abs=0.03)
    assert kept.min() >= 0.6 - 1e-5
    assert kept.max() <= 1.4 + 1e-5


def slow_blur(image_CHW: Tensor, sigma: float) -> Tensor:
    """Weights to four standard deviations, border repeated, a loop a pixel, float64."""
    reach = math.ceil(4 * sigma)
    steps = range(-reach, reach + 1)
    weights = [math.exp(-0.5 * (step / sigma) ** 2) for step in steps]
    size = image_CHW.shape[-1]
    blurred = image_CHW.double()
    for _ in range(2):  # rows, then by transposition columns
        moved = torch.zeros_like(blurred)
        for at in range(size):
            for step, weight in zip(steps, weights, strict=True):
                source = min(max(at + step, 0), size - 1)
                moved[:, at] += weight / sum(weights) * blurred[:, source]
        blurred = moved.transpose(1, 2)
    return blurred


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [5, 20])
def test_blur_equals_the_slow_loop(channels: int, size: int) -> None:
    views = as_floats(rough_images(5, size, channels))
    sigma_N = torch.tensor([0.1, 2.0, 0.0, 0.7, 1.4])
    blurred = views.clone()
    blur(blurred, sigma_N)
    assert torch.equal(blurred[2], views[2])
    for row in (0, 1, 3, 4):
        expected = slow_blur(views[row], float(sigma_N[row]))
        # What lies beyond three standard deviations is left out: less than one level of 255.
        torch.testing.assert_close(blurred[row].double(), expected, atol=1 / 255, rtol=0)
    assert (blurred[1] - views[1]).abs().max() > 0.2


def test_blur_does_not_depend_on_what_is_blurred_with_it() -> None:
    views = as_floats(rough_images(3, 20, 3))
    together, alone = views.clone(), views[:1].clone()
    blur(together, torch.tensor([0.5, 2.0, 1.0]))
    blur(alone, torch.tensor([0.5]))
    torch.testing.assert_close(together[:1], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sigma", [0.5, 1.5])
def test_blur_equals_torchvision_inside(sigma: float) -> None:
    images = smooth_images(2, 33, 1)
    blurred = one_view(images, AugmentationConfig(blur=1.0, blur_sigma=(sigma, sigma)))
    expected = reference.gaussian_blur(as_floats(images), [21, 21], [sigma, sigma])
    inner = slice(10, 23)
    torch.testing.assert_close(
        blurred[..., inner, inner], expected[..., inner, inner], atol=5e-4, rtol=0
    )


def test_blur_comes_as_often_and_as_wide_as_asked() -> None:
    config = AugmentationConfig(blur=0.3, blur_sigma=(0.5, 1.5))
    sigma_N = draw_blur(4000, config, torch.Generator().manual_seed(0))
    drawn = sigma_N[sigma_N > 0]
    assert len(drawn) / 4000 == pytest.approx(0.3, abs=0.03)
    assert 0.5 <= drawn.min() < 0.51
    assert 1.49 < drawn.max() <= 1.5


def test_solarize_inverts_what_reaches_the_threshold() -> None:
    values = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]).view(1, 1, 1, 5).repeat(2, 1, 1, 1)
    solarize(values, torch.tensor([True, False]), 0.5)
    assert values[0].flatten().tolist() == [0.0, 0.25, 0.5, 0.25, 0.0]
    assert values[1].flatten().tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_solarize_equals_torchvision(threshold: float) -> None:
    images = rough_images(2, 16, 3)
    config = AugmentationConfig(solarize=1.0, solarize_threshold=threshold)
    expected = reference.solarize(as_floats(images), threshold)
    torch.testing.assert_close(one_view(images, config), expected)


def test_solarize_comes_as_often_as_asked() -> None:
    images = torch.full((2000, 4, 4, 1), 250, dtype=torch.uint8)
    views = one_view(images, AugmentationConfig(solarize=0.2))
    assert (views[:, 0, 0, 0] < 0.5).float().mean() == pytest.approx(0.2, abs=0.03)
