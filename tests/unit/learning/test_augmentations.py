"""Views as a whole: shape, range, where randomness comes from; strengths and presets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from core.learning.augmentations import PRESETS, AugmentationConfig, augment, machine_code
from core.learning.augmentations import views as pipeline
from tests.unit.learning.augmentation_samples import (
    EVERYTHING,
    as_floats,
    one_view,
    rough_images,
)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [12, 33, 47])
@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
def test_views_have_shape_and_range(preset: str, channels: int, size: int, strength: float) -> None:
    views = augment(
        rough_images(6, size, channels),
        config=PRESETS[preset].scaled(strength),
        views=3,
        generator=torch.Generator().manual_seed(0),
    )
    assert views.shape == (3, 6, channels, size, size)
    assert views.dtype == torch.float32
    assert views.is_contiguous()
    assert not views.requires_grad
    assert views.min() >= 0
    assert views.max() <= 1
    assert not torch.equal(views[0], views[1])
    assert views.std() > 0.01


def test_same_generator_same_views() -> None:
    images = rough_images(4, 48, 3)
    assert torch.equal(one_view(images, EVERYTHING, 5), one_view(images, EVERYTHING, 5))
    assert not torch.equal(one_view(images, EVERYTHING, 5), one_view(images, EVERYTHING, 6))


def test_views_do_not_depend_on_the_global_generator() -> None:
    images = rough_images(2, 16, 3)
    torch.manual_seed(1)
    first = one_view(images, EVERYTHING)
    torch.manual_seed(2)
    assert torch.equal(first, one_view(images, EVERYTHING))


@pytest.mark.parametrize("size", [16, 48])
@pytest.mark.parametrize("rotation", [0.0, 20.0])
def test_views_do_not_depend_on_how_they_are_divided(
    monkeypatch: pytest.MonkeyPatch, two_threads: None, size: int, rotation: float
) -> None:
    images = rough_images(10, size, 3)
    config = AugmentationConfig.from_dict({**EVERYTHING.to_dict(), "rotation": rotation})
    together = one_view(images, config)
    monkeypatch.setattr(pipeline, "COMPILED_AT_ONCE", 1)
    assert torch.equal(one_view(images, config), together)


@pytest.mark.parametrize("size", [16, 48])
@pytest.mark.parametrize("rotation", [0.0, 20.0])
def test_operations_do_not_depend_on_how_views_are_divided(
    monkeypatch: pytest.MonkeyPatch, size: int, rotation: float
) -> None:
    images = rough_images(10, size, 3)
    config = AugmentationConfig.from_dict({**EVERYTHING.to_dict(), "rotation": rotation})
    together = one_view(images, config, compiled=False)
    monkeypatch.setattr(pipeline, "VALUES_AT_ONCE", {"cpu": 1})
    alone = one_view(images, config, compiled=False)
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [16, 48])
def test_views_do_not_depend_on_the_number_of_threads(two_threads: None, size: int) -> None:
    images = rough_images(300, size, 3)
    on_two = one_view(images, EVERYTHING)
    assert torch.get_num_threads() == 2, "the caller's own threads were changed"
    torch.set_num_threads(1)
    assert torch.equal(on_two, one_view(images, EVERYTHING))


@pytest.mark.parametrize("size", [16, 48])
@pytest.mark.parametrize("rotation", [0.0, 20.0])
def test_a_view_shows_nothing_of_other_images(size: int, rotation: float) -> None:
    """The others are replaced; each image's own views must stay what they were."""
    images = rough_images(6, size, 3)
    others = images.clone()
    others[[0, 1, 3, 4, 5]] = 255 - others[[0, 1, 3, 4, 5]]
    config = AugmentationConfig.from_dict({**EVERYTHING.to_dict(), "rotation": rotation})

    def views_of(batch: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        return augment(batch, config=config, views=4, generator=generator)

    before, after = views_of(images), views_of(others)
    assert torch.equal(before[:, 2], after[:, 2])
    assert not torch.equal(before[:, 1], after[:, 1])


def test_an_error_in_a_part_reaches_the_caller(
    monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(machine_code, "kernel", lambda: refuse)
    with pytest.raises(RuntimeError, match="no memory left"):
        one_view(rough_images(2, 16, 3), EVERYTHING)


def test_mixed_precision_and_gradients_do_not_touch_the_views() -> None:
    images = rough_images(2, 16, 3)
    with torch.autocast("cpu", torch.bfloat16), torch.enable_grad():
        mixed = one_view(images, PRESETS["photo"])
    assert torch.equal(mixed, one_view(images, PRESETS["photo"]))


def test_inference_mode_is_no_obstacle(two_threads: None) -> None:
    images = rough_images(2, 16, 3)
    with torch.inference_mode():
        inferred = one_view(images, PRESETS["photo"])
    assert torch.equal(inferred, one_view(images, PRESETS["photo"]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 48])
def test_the_default_changes_nothing(channels: int, size: int) -> None:
    images = rough_images(3, size, channels)
    assert torch.equal(one_view(images, AugmentationConfig()), as_floats(images))


def test_operations_of_no_strength_change_nothing() -> None:
    images = rough_images(3, 16, 3)
    config = AugmentationConfig(jitter=1.0, rotation=1e-9, blur=1.0, blur_sigma=(1e-3, 1e-3))
    torch.testing.assert_close(one_view(images, config), as_floats(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [*PRESETS.values(), EVERYTHING])
def test_round_trip_through_json(config: AugmentationConfig) -> None:
    assert AugmentationConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_configuration_from_before_has_none_of_the_new_operations() -> None:
    old = {"crop_area": [0.2, 1.0], "flip": 0.5}
    config = AugmentationConfig.from_dict(old)
    assert config == AugmentationConfig(crop_area=(0.2, 1.0), flip=0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crop_area", (0.0, 1.0)),
        ("crop_ratio", 0.5),
        ("blur_sigma", (2.0, 1.0)),
        ("flip", 1.1),
        ("solarize", -0.1),
        ("solarize_threshold", 2.0),
        ("rotation", -1.0),
        ("hue", float("nan")),
    ],
)
def test_impossible_values_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        AugmentationConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [*PRESETS.values(), EVERYTHING, AugmentationConfig()])
def test_strength_one_changes_nothing(config: AugmentationConfig) -> None:
    assert config.scaled(1.0) == config


@pytest.mark.parametrize("strength", [-0.1, 2.1, float("nan")])
def test_impossible_strengths_are_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="strength"):
        EVERYTHING.scaled(strength)


def test_strength_zero_keeps_symmetries_and_a_mild_crop() -> None:
    weak = PRESETS["microscopy"].scaled(0)
    assert weak == AugmentationConfig(
        crop_area=(0.75, 1.0),
        flip=0.5,
        vertical_flip=0.5,
        quarter_turns=True,
        jitter=0.8,
        blur_sigma=(0.1, 0.1),
    )
    mild = AugmentationConfig(crop_area=(0.9, 1.5))
    assert mild.scaled(0).crop_area == (0.9, 1.0)
    assert AugmentationConfig().scaled(2.0) == AugmentationConfig(blur_sigma=(0.1, 4.0))


def test_strength_grows_with_everything() -> None:
    weak, full, strong = (PRESETS["photo"].scaled(s) for s in (0.5, 1.0, 2.0))
    assert weak.crop_area == pytest.approx((0.415, 1.0))
    assert strong.crop_area == pytest.approx((0.04, 1.0))
    for name in ("brightness", "contrast", "saturation", "hue"):
        assert getattr(weak, name) == pytest.approx(getattr(full, name) / 2)
        assert getattr(strong, name) == pytest.approx(getattr(full, name) * 2)
    assert (weak.grey, weak.blur, weak.blur_sigma) == (0.1, 0.25, (0.1, 1.0))
    assert (strong.grey, strong.blur, strong.blur_sigma) == (0.2, 0.5, (0.1, 4.0))
    document = PRESETS["document"].scaled(2)
    assert (document.rotation, document.shear) == (30.0, 30.0)
    assert document.crop_area == pytest.approx((0.25, 1.4))


def test_every_field_is_scaled_or_known_to_stay() -> None:
    """A field that is added must be thought of here."""
    loud = AugmentationConfig(
        crop_area=(0.5, 1.5), crop_ratio=2.0, rotation=10.0, shear=10.0, flip=0.5,
        vertical_flip=0.5, quarter_turns=True, brightness=0.4, contrast=0.4, saturation=0.4,
        hue=0.1, jitter=0.8, grey=0.2, blur=0.5, solarize=0.2,
    )  # fmt: skip
    half = loud.scaled(0.5)
    stayed = {f.name for f in fields(loud) if getattr(loud, f.name) == getattr(half, f.name)}
    assert stayed == {"flip", "vertical_flip", "quarter_turns", "jitter", "solarize_threshold"}
