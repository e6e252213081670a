"""Every kind of pixel comes out as the RGB that a viewer shows."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.images.image_samples import chunk, encode, exif, gradient, ihdr, png, read


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_lossless_rgb_is_exact(kind: str) -> None:
    image = gradient()
    decoded = read(encode(image, kind, lossless=True))
    np.testing.assert_array_equal(decoded.pixels_HWC, np.asarray(image))
    assert decoded.pixels_HWC.dtype == np.uint8
    assert decoded.pixels_HWC.flags.c_contiguous
    assert (decoded.info.width, decoded.info.height) == (24, 16)
    assert (decoded.info.format, decoded.info.mode) == (kind, "RGB")
    assert not decoded.info.greyscale


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_jpeg_is_close(options: dict[str, Any]) -> None:
    image = gradient()
    decoded = read(encode(image, "JPEG", quality=98, subsampling=0, **options))
    assert decoded.info.format == "JPEG"
    difference_HWC = decoded.pixels_HWC.astype(int) - np.asarray(image).astype(int)
    assert np.abs(difference_HWC).max() <= 12


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "L"), ("JPEG", "L"), ("PNG", "1")])
def test_greyscale_is_told_and_spread(kind: str, mode: str) -> None:
    image = gradient().convert(mode)
    decoded = read(encode(image, kind, **({"quality": 100} if kind == "JPEG" else {})))
    assert decoded.info.greyscale
    assert decoded.info.mode == mode
    assert decoded.pixels_HWC.shape == (16, 24, 3)
    expected_HW = np.asarray(image.convert("L")).astype(int)
    assert np.abs(decoded.pixels_HWC[..., 1].astype(int) - expected_HW).max() <= 2


def test_grey_colours_in_an_rgb_file_are_greyscale() -> None:
    grey_HW = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert read(encode(Image.fromarray(grey_HW).convert("RGB"))).info.greyscale


def test_one_differing_pixel_is_not_greyscale() -> None:
    pixels_HWC = np.full((16, 16, 3), 9, np.uint8)
    pixels_HWC[7, 7, 2] = 10
    assert not read(encode(Image.fromarray(pixels_HWC))).info.greyscale


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    wide_HW = np.array([[0, 255, 256, 32768, 65280, 65535]], np.uint16)
    decoded = read(encode(Image.fromarray(wide_HW)))
    assert decoded.info.mode == "I;16"
    expected = [round(int(value) / 257) for value in wide_HW[0]]
    assert decoded.pixels_HWC[0, :, 0].tolist() == expected == [0, 1, 1, 128, 254, 255]


def test_sixteen_bit_colour_is_scaled() -> None:
    row = b"\0" + struct.pack(">6H", 65535, 32768, 0, 0x1234, 0x5678, 0x9ABC)
    decoded = read(png(ihdr(2, 1, 16, 2), row))
    assert decoded.pixels_HWC[0].tolist() == [[255, 128, 0], [0x12, 0x56, 0x9A]]


def test_palette() -> None:
    image = gradient().quantize(16)
    expected_HWC = np.asarray(image.convert("RGB"))
    decoded = read(encode(image))
    assert decoded.info.mode == "P"
    np.testing.assert_array_equal(decoded.pixels_HWC, expected_HWC)


@pytest.mark.parametrize("alphas", [b"\x00", b"\xff\x80\x00"])
def test_palette_with_transparency_is_laid_over_white(alphas: bytes) -> None:
    palette = bytes([200, 0, 0, 0, 200, 0, 0, 0, 200])
    extra = (chunk(b"PLTE", palette), chunk(b"tRNS", alphas))
    decoded = read(png(ihdr(3, 1, 8, 3), b"\0\x00\x01\x02", *extra))
    colours = np.frombuffer(palette, np.uint8).reshape(3, 3).astype(float)
    alpha = np.frombuffer(alphas.ljust(3, b"\xff"), np.uint8)[:, None] / 255
    expected = colours * alpha + 255 * (1 - alpha)
    np.testing.assert_allclose(decoded.pixels_HWC[0], expected, atol=1)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_laid_over_white(kind: str) -> None:
    row = [(10, 20, 30, 255), (10, 20, 30, 0), (0, 0, 0, 128)]
    image = Image.fromarray(np.array([row], np.uint8))
    decoded = read(encode(image, kind, lossless=True, exact=True))
    assert decoded.info.mode == "RGBA"
    assert decoded.pixels_HWC[0].tolist() == [[10, 20, 30], [255, 255, 255], [127, 127, 127]]


def test_grey_with_alpha() -> None:
    image = Image.merge("LA", [Image.new("L", (2, 2), 40), Image.new("L", (2, 2), 0)])
    decoded = read(encode(image))
    assert decoded.info.mode == "LA"
    assert decoded.info.greyscale
    assert (decoded.pixels_HWC == 255).all()


@pytest.mark.parametrize(
    ("header", "row", "transparent", "expected"),
    [
        (ihdr(2, 1, 8, 0), b"\x07\x08", b"\0\x07", [255, 8]),
        (ihdr(2, 1, 2, 0), b"\x60", b"\0\x01", [255, 170]),
        (ihdr(2, 1, 1, 0), b"\x40", b"\0\x00", [255, 255]),
        (ihdr(2, 1, 16, 0), b"\x01\x00\x02\x00", b"\x01\x00", [255, 2]),
        (ihdr(2, 1, 8, 2), b"\x01\x01\x01\x02\x02\x02", b"\0\1\0\1\0\1", [255, 2]),
    ],
)
def test_transparent_colour(
    header: bytes, row: bytes, transparent: bytes, expected: list[int]
) -> None:
    decoded = read(png(header, b"\0" + row, chunk(b"tRNS", transparent)))
    assert decoded.pixels_HWC[0, :, 0].tolist() == expected


@pytest.mark.parametrize("ycck", [False, True], ids=["adobe-cmyk", "adobe-ycck"])
def test_cmyk_jpeg_with_adobe_inversion(ycck: bool) -> None:
    red = (200, 40, 30)
    # Adobe stores 255 - ink, which is RGB without black; as YCCK, the YCbCr of the ink itself
    # (libjpeg's jdcolor.c: R = 1 - C' for the stored C').
    stored = Image.new("RGB", (16, 16), red)
    if ycck:
        stored = stored.point(lambda value: 255 - value).convert("YCbCr")
    # Pillow's encoder inverts what it is given.
    inks = [channel.point(lambda value: 255 - value) for channel in stored.split()]
    data = encode(Image.merge("CMYK", [*inks, Image.new("L", (16, 16), 0)]), "JPEG", quality=100)
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    decoded = read(data[:at] + bytes([2 if ycck else 0]) + data[at + 1 :])
    assert decoded.info.mode == "CMYK"
    np.testing.assert_allclose(decoded.pixels_HWC[8, 8], red, atol=4)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind: str, order: str, orientation: int) -> None:
    # Dark corner at the top left as stored; where it must be seen, from the EXIF specification.
    stored_HW = np.full((32, 64), 250, np.uint8)
    stored_HW[:16, :16] = 5
    image = Image.fromarray(stored_HW).convert("RGB")
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = read(encode(image, kind, exif=exif(orientation, order), **options))
    turned = orientation >= 5
    assert (decoded.info.width, decoded.info.height) == ((32, 64) if turned else (64, 32))
    top = orientation in (1, 2, 5, 8) if not turned else orientation in (5, 6)
    left = orientation in (1, 4) if not turned else orientation in (5, 8)
    corner = decoded.pixels_HWC[2 if top else -3, 2 if left else -3, 0]
    assert corner < 20
    assert (decoded.pixels_HWC[..., 0] < 100).mean() == pytest.approx(0.125, abs=0.01)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_impossible_orientation_is_ignored(value: int) -> None:
    assert read(encode(gradient(), "JPEG", exif=exif(value))).info.width == 24


@pytest.mark.parametrize("length", range(0, 36, 3))
def test_cut_exif_does_not_spoil_a_sound_image(length: int) -> None:
    data = encode(gradient(), "JPEG", exif=exif(6)[:length])
    assert read(data).info.format == "JPEG"


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    assert read(data).pixels_HWC[4, 4].tolist() == [255, 0, 0]


def test_one_pixel() -> None:
    assert read(encode(Image.new("RGB", (1, 1), "red"))).pixels_HWC.tolist() == [[[255, 0, 0]]]


@pytest.mark.parametrize(
    ("colour", "samples"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["grey", "RGB", "LA", "RGBA"]
)
def test_png_of_sixteen_bits(colour: int, samples: int) -> None:
    stored = np.random.default_rng(colour).integers(0, 2**16, (7, 9, samples), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in stored)
    light = stored / 65535
    if samples in (2, 4):
        alpha = light[..., -1:]
        light = light[..., :-1] * alpha + 1 - alpha
    expected = np.broadcast_to(255 * light, (7, 9, 3))
    found = read(png(ihdr(9, 7, 16, colour), rows)).pixels_HWC
    np.testing.assert_allclose(found, expected, atol=0.5 if samples == 1 else 2)
