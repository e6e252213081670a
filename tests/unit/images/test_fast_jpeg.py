"""The fast way through ordinary JPEGs gives the same pixels, and leaves the odd ones alone."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from core.images import decoding
from core.images.headers import read_header
from tests.unit.images.image_samples import encode, gradient, read

PHOTO = Image.fromarray(load_sample_image("china.jpg"))


def fast(data: bytes) -> bool:
    header = read_header(data, max_pixels=2**24)
    assert header is not None
    return decoding._fast_jpeg(data, header) is not None


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2, "4:1:1"])
@pytest.mark.parametrize("size", [(640, 427), (223, 31), (1, 1)])
def test_same_pixels_as_pillow(
    size: tuple[int, int], subsampling: int | str, progressive: bool
) -> None:
    image = PHOTO.resize(size)
    options: dict[str, Any] = {"subsampling": subsampling, "progressive": progressive}
    data = encode(image, "JPEG", quality=77, **options)
    assert fast(data)
    with Image.open(BytesIO(data)) as opened:
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(read(data).pixels_HWC, expected)


def test_same_grey_as_pillow() -> None:
    data = encode(PHOTO.convert("L"), "JPEG", quality=90)
    assert fast(data)
    with Image.open(BytesIO(data)) as opened:
        expected = np.asarray(opened)
    decoded = read(data)
    assert (decoded.info.mode, decoded.info.greyscale) == ("L", True)
    np.testing.assert_array_equal(decoded.pixels_HWC, np.repeat(expected[..., None], 3, axis=-1))


def test_odd_ones_are_left_to_pillow() -> None:
    assert not fast(encode(gradient().convert("CMYK"), "JPEG"))
    data = encode(PHOTO, "JPEG")
    at = len(data) // 2
    spoilt = data[:at] + b"\xff\xd0" + data[at + 2 :]  # a restart mark where none belongs
    assert not fast(spoilt)
    with Image.open(BytesIO(spoilt)) as opened:
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(read(spoilt).pixels_HWC, expected)
