"""Vectorised operations against torchvision's, one image at a time."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from core.learning import augmentations
from core.learning.augmentations import PRESETS, AugmentationConfig, augment


def random_images(count: int, size: int, channels: int) -> Tensor:
    """Smooth, so that interpolation rules matter little, and far from 0 and 1."""
    rough = torch.rand(count, channels, 5, 5, generator=torch.Generator().manual_seed(size))
    smooth: Tensor = reference.resize(rough, [size, size], antialias=True) * 100 + 70
    return smooth.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def one_view(images_BHWC: Tensor, config: AugmentationConfig, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return augment(images_BHWC, config=config, views=1, generator=generator)[0]


def as_floats(images_BHWC: Tensor) -> Tensor:
    return images_BHWC.permute(0, 3, 1, 2) / 255


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_views_have_shape_and_range(preset: str, channels: int) -> None:
    images = torch.randint(0, 256, (6, 12, 12, channels), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    views = augment(images, config=PRESETS[preset], views=3, generator=generator)
    assert views.shape == (3, 6, channels, 12, 12)
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1 + 1e-6
    assert not torch.equal(views[0], views[1])


def test_same_generator_same_views() -> None:
    images = random_images(4, 16, 3)
    assert torch.equal(one_view(images, PRESETS["photo"], 5), one_view(images, PRESETS["photo"], 5))
    assert not torch.equal(
        one_view(images, PRESETS["photo"], 5), one_view(images, PRESETS["photo"], 6)
    )


def test_views_do_not_depend_on_the_global_generator() -> None:
    images = random_images(2, 16, 3)
    torch.manual_seed(1)
    first = one_view(images, PRESETS["photo"])
    torch.manual_seed(2)
    assert torch.equal(first, one_view(images, PRESETS["photo"]))


def test_mixed_precision_does_not_touch_the_views() -> None:
    images = random_images(2, 16, 3)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = one_view(images, PRESETS["photo"])
    assert torch.equal(mixed, one_view(images, PRESETS["photo"]))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_default_changes_nothing(channels: int) -> None:
    images = random_images(3, 16, channels)
    assert torch.equal(one_view(images, AugmentationConfig()), as_floats(images))


def test_operations_of_no_strength_change_nothing() -> None:
    images = random_images(3, 16, 3)
    config = AugmentationConfig(jitter=1.0, rotation=1e-9, blur=1.0, blur_sigma=(1e-3, 1e-3))
    torch.testing.assert_close(one_view(images, config), as_floats(images), atol=1e-5, rtol=0)


def test_flip_is_a_mirror() -> None:
    images = random_images(3, 16, 3)
    flipped = one_view(images, AugmentationConfig(flip=1.0))
    torch.testing.assert_close(flipped, as_floats(images).flip(-1), atol=1e-5, rtol=0)


def test_crop_equals_resized_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    size, images = 32, random_images(1, 32, 3)
    # A quarter of the area at the upper left: the generator's choices are fixed, in their order.
    draws = iter([0.25, 0.0, -1.0, -1.0, 0.0, 0.0])
    monkeypatch.setattr(
        augmentations, "_uniform", lambda count, *_: torch.full((count,), next(draws))
    )
    config = AugmentationConfig(crop_area=(0.25, 0.25))
    expected = reference.resized_crop(
        as_floats(images), 0, 0, size // 2, size // 2, [size, size], antialias=False
    )
    # The last row and column differ: torchvision cuts before it interpolates.
    torch.testing.assert_close(
        one_view(images, config)[..., :-1, :-1], expected[..., :-1, :-1], atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("angle", [-30.0, 10.0, 45.0])
def test_rotation_equals_torchvision(monkeypatch: pytest.MonkeyPatch, angle: float) -> None:
    images = random_images(1, 33, 3)
    draws = iter([1.0, 0.0, 0.0, 0.0, angle, 0.0])
    monkeypatch.setattr(
        augmentations, "_uniform", lambda count, *_: torch.full((count,), next(draws))
    )
    # Positive angles turn our sampling grid, and so the picture the other way.
    expected = reference.rotate(
        as_floats(images), angle, interpolation=reference.InterpolationMode.BILINEAR
    )
    rotated = one_view(images, AugmentationConfig(rotation=45.0))
    inner = slice(10, 23)
    torch.testing.assert_close(
        rotated[..., inner, inner], expected[..., inner, inner], atol=1e-4, rtol=0
    )


def test_crops_cover_the_wanted_areas_and_stay_inside() -> None:
    config = AugmentationConfig(crop_area=(0.2, 1.0), crop_ratio=4 / 3, flip=0.5)
    maps = augmentations._affine_maps(4000, config, torch.Generator().manual_seed(0))
    width, height = maps[:, 0, 0].abs(), maps[:, 1, 1]
    area = width * height
    assert area.min() >= 0.19
    assert area.max() <= 1
    assert area.mean() == pytest.approx(0.59, abs=0.03)
    assert ((maps[:, 0, 2].abs() + width) <= 1 + 1e-6).all()
    assert ((maps[:, 1, 2].abs() + height) <= 1 + 1e-6).all()
    assert (maps[:, 0, 0] < 0).float().mean() == pytest.approx(0.5, abs=0.03)
    assert (width / height).max() <= 4 / 3 + 1e-5


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_jitter_equals_torchvision(name: str) -> None:
    images = random_images(1, 16, 3)
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
    images = random_images(2, 16, 3)
    grey = one_view(images, AugmentationConfig(grey=1.0))
    expected = reference.rgb_to_grayscale(as_floats(images), num_output_channels=3)
    torch.testing.assert_close(grey, expected, atol=2e-3, rtol=0)


def test_hue_keeps_greys_and_luma_and_turns_back() -> None:
    turn, back = torch.tensor([0.1, -0.3]), torch.tensor([-0.1, 0.3])
    there = augmentations._hue_matrices(turn)
    torch.testing.assert_close(
        augmentations._hue_matrices(back) @ there, torch.eye(3).expand(2, 3, 3), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(there.sum(-1), torch.ones(2, 3), atol=1e-5, rtol=0)
    luma = torch.tensor(augmentations.LUMA)
    torch.testing.assert_close(luma @ there, luma.expand(2, 3), atol=1e-5, rtol=0)
    assert (there - torch.eye(3)).abs().max() > 0.3


@pytest.mark.parametrize("sigma", [0.5, 1.5])
def test_blur_equals_torchvision_inside(sigma: float) -> None:
    images = random_images(2, 33, 1)
    blurred = one_view(images, AugmentationConfig(blur=1.0, blur_sigma=(sigma, sigma)))
    expected = reference.gaussian_blur(as_floats(images), [21, 21], [sigma, sigma])
    inner = slice(10, 23)
    torch.testing.assert_close(
        blurred[..., inner, inner], expected[..., inner, inner], atol=1e-4, rtol=0
    )


def test_blur_touches_the_selected_part_only() -> None:
    images = torch.randint(0, 256, (200, 8, 8, 1), dtype=torch.uint8)
    blurred = one_view(images, AugmentationConfig(blur=0.5, blur_sigma=(1.0, 1.0)))
    untouched = (blurred == as_floats(images)).flatten(1).all(dim=1).float().mean()
    assert untouched == pytest.approx(0.5, abs=0.12)


def test_round_trip_through_json() -> None:
    for config in PRESETS.values():
        assert AugmentationConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("name", "value"),
    [("crop_area", (0.0, 1.0)), ("crop_ratio", 0.5), ("blur_sigma", (2.0, 1.0))],
)
def test_impossible_values_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        AugmentationConfig(**{name: value})  # type: ignore[arg-type]


def test_zooming_out_repeats_the_border() -> None:
    images = torch.full((1, 8, 8, 1), 200, dtype=torch.uint8)
    zoomed = one_view(images, AugmentationConfig(crop_area=(4.0, 4.0)))
    assert zoomed.min().item() == pytest.approx(200 / 255)
    assert math.isclose(zoomed.max().item(), 200 / 255, rel_tol=1e-6)
