"""One way from an image to a model's input."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from core.learning.preprocessing import Preprocessing


def make(image_size: int = 8, channels: int = 3) -> Preprocessing:
    return Preprocessing(
        image_size=image_size,
        channels=channels,
        mean=(0.5, 0.4, 0.3)[:channels],
        std=(0.2, 0.25, 0.5)[:channels],
    )


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 5000), (5000, 1), (3, 2), (8, 8), (33, 100), (640, 480)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_canvas_of_any_size(height: int, width: int, channels: int) -> None:
    image = np.full((height, width, 3), 77, dtype=np.uint8)
    canvas = make(16, channels).canvas(image)
    assert canvas.shape == (16, 16, channels)
    assert canvas.dtype == np.uint8
    assert (canvas == 77).all()


def test_canvas_keeps_an_image_that_fits() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(make(8).canvas(image), image)


def test_canvas_takes_the_centre() -> None:
    image = np.zeros((8, 24, 3), dtype=np.uint8)
    image[:, 8:16] = 255
    assert (make(8).canvas(image) == 255).all()
    assert (make(4).canvas(image) == 255).all()


def test_canvas_is_antialiased() -> None:
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    canvas = make(8).canvas(np.repeat(checks[..., None], 3, axis=2))
    assert np.abs(canvas.astype(int) - 127).max() <= 4


def test_canvas_of_one_channel_is_luma() -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[..., 1] = 200
    assert abs(int(make(8, 1).canvas(image)[0, 0, 0]) - 0.587 * 200) <= 1


def test_canvas_accepts_views_with_any_strides() -> None:
    image = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    flipped = image[::-1, ::-1]
    np.testing.assert_array_equal(make(8).canvas(flipped), make(8).canvas(flipped.copy()))


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_canvas_refuses_other_arrays(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="is needed"):
        make().canvas(bad)


def test_normalise_is_the_formula() -> None:
    preprocessing = make(4)
    images = np.random.default_rng(2).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    expected = (images / 255 - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    normalised = preprocessing.normalise(torch.from_numpy(images))
    assert normalised.dtype == torch.float32
    np.testing.assert_allclose(normalised.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_round_trip_through_json() -> None:
    preprocessing = make(channels=1)
    copy = Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict())))
    assert copy == preprocessing


@pytest.mark.parametrize(
    ("field", "value"),
    [("channels", 4), ("image_size", 0), ("mean", (0.5,)), ("std", (0.1, 0.0, 0.1))],
)
def test_impossible_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        Preprocessing(**{**make().to_dict(), field: value})
