"""Embedded colour profiles: converted to sRGB as arithmetic says, ignored when they are broken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from core.images.colour import conversion
from tests.unit.images.image_samples import encode, gradient, read
from tests.unit.images.profile_samples import (
    ADOBE,
    ADOBE_GAMMA,
    P3,
    SRGB,
    converted,
    gamma,
    linear_grey,
    press,
    screen,
    srgb_curve,
    to_srgb,
)

COLOURS = np.random.default_rng(5).integers(0, 256, (16, 16, 3), dtype=np.uint8)
LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}}
SPACES = {
    "Adobe RGB": (ADOBE, gamma(ADOBE_GAMMA), ADOBE_GAMMA),
    "Display P3": (P3, srgb_curve(), None),
}


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("space", SPACES)
def test_colours_of_another_space(space: str, kind: str) -> None:
    primaries, curve, power = SPACES[space]
    data = encode(
        Image.fromarray(COLOURS), kind, icc_profile=screen(primaries, curve), **LOSSLESS[kind]
    )
    expected = converted(COLOURS, primaries, power)
    np.testing.assert_allclose(read(data).pixels_HWC, expected, atol=2)
    assert np.abs(expected - COLOURS).max() > 20  # so that the test could fail


def test_colours_of_a_jpeg() -> None:
    # One colour, so that nothing but rounding is lost.
    colour = np.full((16, 16, 3), (40, 200, 90), np.uint8)
    data = encode(
        Image.fromarray(colour),
        "JPEG",
        quality=100,
        icc_profile=screen(ADOBE, gamma(ADOBE_GAMMA)),
    )
    expected = converted(colour, ADOBE, ADOBE_GAMMA)
    np.testing.assert_allclose(read(data).pixels_HWC, expected, atol=4)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_grey_stays_grey(kind: str) -> None:
    ramp_HW = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16), 8, 0).repeat(8, 1)
    options = {"quality": 100} if kind == "JPEG" else {}
    data = encode(Image.fromarray(ramp_HW), kind, icc_profile=linear_grey(), **options)
    decoded = read(data)
    assert decoded.info.greyscale
    # A step of the darkest linear greys is 13 levels of sRGB, and JPEG rounds before it.
    bright = ramp_HW > 40
    expected = to_srgb(ramp_HW / 255)[bright]
    np.testing.assert_allclose(
        decoded.pixels_HWC[..., 0][bright], expected, atol=3 if kind == "JPEG" else 1
    )


def test_grey_of_sixteen_bits() -> None:
    wide_HW = np.linspace(5000, 65535, 256).astype(np.uint16).reshape(16, 16)
    data = encode(Image.fromarray(wide_HW), "TIFF", icc_profile=linear_grey())
    found = read(data).pixels_HWC[..., 0]
    np.testing.assert_allclose(found, to_srgb(wide_HW / 65535), atol=2)


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_inks_of_a_press(kind: str) -> None:
    # Magenta and yellow on each other are sRGB's red (L*a*b* under D50), black ink is black.
    inks = press({(0, 1, 1, 0): (54.29, 80.81, 69.89), (0, 0, 0, 1): (0.0, 0.0, 0.0)})
    for ink, expected in {
        (0, 0, 0, 0): (255, 255, 255),
        (0, 255, 255, 0): (255, 0, 0),
        (0, 0, 0, 255): (0, 0, 0),
    }.items():
        options = {"quality": 100} if kind == "JPEG" else {}
        image = Image.new("CMYK", (16, 16), ink)
        data = encode(image, kind, icc_profile=inks, **options)
        np.testing.assert_allclose(read(data).pixels_HWC[8, 8], expected, atol=6)


def test_transparency_is_laid_over_white_after_the_conversion() -> None:
    rgba = np.array([[[40, 200, 90, 255], [40, 200, 90, 0]]], np.uint8)
    data = encode(Image.fromarray(rgba), icc_profile=screen(ADOBE, gamma(ADOBE_GAMMA)))
    found = read(data).pixels_HWC[0]
    np.testing.assert_allclose(found[0], converted(rgba[0, :1, :3], ADOBE, ADOBE_GAMMA)[0], atol=2)
    assert found[1].tolist() == [255, 255, 255]


def test_palette_with_a_profile() -> None:
    image = Image.fromarray(COLOURS).quantize(16)
    colours = np.asarray(image.convert("RGB"))
    data = encode(image, icc_profile=screen(P3, srgb_curve()))
    np.testing.assert_allclose(read(data).pixels_HWC, converted(colours, P3, None), atol=2)


@pytest.mark.parametrize(
    "profile",
    [
        screen(SRGB, srgb_curve()),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ],
    ids=["by hand", "by Little CMS"],
)
def test_srgb_by_any_name_changes_nothing(profile: bytes) -> None:
    assert conversion(profile, "RGB") is None
    data = encode(Image.fromarray(COLOURS), icc_profile=profile)
    np.testing.assert_array_equal(read(data).pixels_HWC, COLOURS)


BROKEN = {
    "empty": b"",
    "zeros": bytes(300),
    "cut": screen(ADOBE, gamma(2.2))[:200],
    "of grey": linear_grey(),
    "of a press": press({}),
    "without curves": screen(ADOBE, b"text" + bytes(8)),
    "of megabytes": screen(ADOBE, gamma(2.2)) + bytes(5 * 2**20),
    "a program": screen(ADOBE, gamma(2.2)) + b"mpet",
    "tags far away": screen(ADOBE, gamma(2.2)).replace(b"rTRC\0", b"rTRC\x7f"),
    "a million tags": screen(ADOBE, gamma(2.2))[:128] + b"\0\x0f\x42\x40" + bytes(3000),
}


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
@pytest.mark.parametrize("profile", BROKEN.values(), ids=BROKEN)
def test_a_broken_profile_is_ignored(profile: bytes, kind: str) -> None:
    image = gradient()
    plain = read(encode(image, kind), max_bytes=2**23)
    found = read(encode(image, kind, icc_profile=profile), max_bytes=2**23)
    np.testing.assert_array_equal(found.pixels_HWC, plain.pixels_HWC)


def test_a_profile_is_read_once() -> None:
    profile = screen(P3, srgb_curve())
    assert conversion(profile, "RGB") is conversion(bytes(bytearray(profile)), "RGB")
