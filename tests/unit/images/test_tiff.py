"""TIFF: every kind that is read comes out as the pixels that its specification says."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from core.errors import ImageInvalid, ImageTooLarge
from core.images.headers.directory import MAX_PARTS
from tests.unit.images.image_samples import encode, gradient, read
from tests.unit.images.raw_samples import (
    SHORT,
    UNDEFINED,
    Tag,
    changed,
    long,
    picture,
    short,
    tiff,
)

NOISE = np.random.default_rng(11)
LOSSLESS = [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"]


def wide(*shape: int) -> NDArray[np.uint16]:
    return NOISE.integers(0, 2**16, shape, dtype=np.uint16)


def pixels(data: bytes) -> NDArray[np.int64]:
    return read(data).pixels_HWC.astype(int)


@pytest.mark.parametrize("compression", LOSSLESS)
@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_lossless_is_exact(mode: str, compression: str | None) -> None:
    image = gradient(37, 21)
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    decoded = read(encode(image, "TIFF", compression=compression))
    assert (decoded.info.format, decoded.info.mode) == ("TIFF", mode)
    if mode == "P":
        table = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
        expected = table[np.asarray(image)]
    else:
        levels = np.asarray(image).astype(np.uint8) * (255 if mode == "1" else 1)
        expected = levels if mode == "RGB" else np.repeat(levels[..., None], 3, axis=-1)
    np.testing.assert_array_equal(decoded.pixels_HWC, expected)
    assert decoded.info.greyscale == (mode in ("1", "L"))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_packed_as_jpeg(mode: str) -> None:
    image = gradient(48, 32).convert(mode)
    decoded = pixels(encode(image, "TIFF", compression="jpeg", quality=98))
    assert np.abs(decoded - np.asarray(image.convert("RGB")).astype(int)).max() <= 12


@pytest.mark.parametrize("compression", LOSSLESS)
def test_cmyk(compression: str | None) -> None:
    inks = NOISE.integers(0, 256, (9, 7, 4), dtype=np.uint8)
    image = Image.frombytes("CMYK", (7, 9), inks.tobytes())
    light = (255 - inks.astype(float)) / 255
    expected = 255 * light[..., :3] * light[..., 3:]
    np.testing.assert_allclose(
        pixels(encode(image, "TIFF", compression=compression)), expected, atol=1
    )


@pytest.mark.parametrize("extra", [1, 2], ids=["multiplied by alpha", "alpha"])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_laid_over_white(mode: str, extra: int) -> None:
    samples = len(mode)
    stored = NOISE.integers(0, 256, (5, 6, samples), dtype=np.uint8)
    if extra == 1:  # no sample is above its alpha
        stored[..., :-1] = np.minimum(stored[..., :-1], stored[..., -1:])
    kind = 1 if mode == "LA" else 2
    tags = changed(picture(6, 5, bits=[8] * samples, kind=kind), short(338, extra))
    alpha = stored[..., -1:] / 255
    own = stored[..., :-1] if extra == 1 else stored[..., :-1] * alpha
    expected = np.broadcast_to(own + 255 * (1 - alpha), (5, 6, 3))
    np.testing.assert_allclose(pixels(tiff(tags, stored.tobytes())), expected, atol=2)


@pytest.mark.parametrize("compression", LOSSLESS)
def test_greyscale_of_sixteen_bits(compression: str | None) -> None:
    levels_HW = wide(13, 17)
    decoded = read(encode(Image.fromarray(levels_HW), "TIFF", compression=compression))
    expected = np.round(levels_HW / 65535 * 255)
    for channel in range(3):
        np.testing.assert_array_equal(decoded.pixels_HWC[..., channel], expected)
    assert decoded.info.greyscale


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "deflate"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [0, 1, 2, 5], ids=["white is 0", "black is 0", "RGB", "CMYK"])
def test_sixteen_bits_by_hand(kind: int, order: str, packed: bool) -> None:
    samples = {0: 1, 1: 1, 2: 3, 5: 4}[kind]
    stored = wide(11, 8, samples)
    stored[0, 0], stored[0, 1] = 0, 65535
    body = stored.astype(order + "u2").tobytes()
    tags = picture(8, 11, bits=[16] * samples, kind=kind, order=order)
    if packed:
        body = zlib.compress(body)
        size, method = long(279, len(body), order=order), short(259, 8, order=order)
        tags = changed(tags, size, method)
    found = pixels(tiff(tags, body, order=order))
    light = 1 - stored / 65535 if kind in (0, 5) else stored / 65535
    expected = 255 * (light[..., :3] * light[..., 3:] if kind == 5 else light)
    # Colours keep the upper byte of each sample, and CMYK multiplies two of them.
    atol = {2: 1.0, 5: 2.6}.get(kind, 0.5)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=atol)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "deflate"])
@pytest.mark.parametrize("planes", [1, 3], ids=["together", "separate"])
@pytest.mark.parametrize("tiled", [False, True], ids=["strips", "tiles"])
def test_parts_in_any_arrangement(tiled: bool, planes: int, packed: bool, order: str) -> None:
    width, height = 32, 48
    image = NOISE.integers(0, 256, (height, width, 3), dtype=np.uint8)
    layers = [image] if planes == 1 else [image[..., band : band + 1] for band in range(3)]
    parts = [
        layer[y : y + 16, x : x + 16] if tiled else layer[y : y + 16]
        for layer in layers
        for y in range(0, height, 16)
        for x in range(0, width if tiled else 1, 16)
    ]
    bodies = [part.tobytes() for part in parts]
    if packed:
        bodies = [zlib.compress(body) for body in bodies]
    places = np.cumsum([8] + [len(body) for body in bodies])[:-1].tolist()
    sizes = [len(body) for body in bodies]
    where, size = (324, 325) if tiled else (273, 279)
    strips = picture(width, height, bits=[8] * 3, kind=2, order=order)
    tags = [tag for tag in strips if tag[0] not in (273, 278, 279)]
    shape = [(322, 16), (323, 16)] if tiled else [(278, 16)]
    more: list[Tag] = [short(tag, value, order=order) for tag, value in shape]
    more += [long(where, *places, order=order), long(size, *sizes, order=order)]
    more += [short(259, 8 if packed else 1, order=order)]
    more += [short(284, 1 if planes == 1 else 2, order=order)]
    found = read(tiff(changed(tags, *more), b"".join(bodies), order=order))
    np.testing.assert_array_equal(found.pixels_HWC, image)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_tag(orientation: int, compression: str | None) -> None:
    stored = NOISE.integers(0, 256, (5, 9, 3), dtype=np.uint8)
    options: dict[str, Any] = {"compression": compression, "tiffinfo": {274: orientation}}
    # From the specification: which way the stored rows and columns run.
    turns: dict[int, Callable[[Any], Any]] = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.rot90(np.fliplr(a)),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(np.fliplr(a), -1),
        8: np.rot90,
    }
    shown = turns[orientation](stored)
    found = read(encode(Image.fromarray(stored), "TIFF", **options))
    np.testing.assert_array_equal(found.pixels_HWC, shown)
    assert (found.info.width, found.info.height) == shown.shape[1::-1]


def test_first_page() -> None:
    pages = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert read(data).pixels_HWC[4, 4].tolist() == [255, 0, 0]


def test_a_directory_that_follows_itself_is_one_page() -> None:
    tags = picture(2, 1)
    once = tiff(tags, b"\x01\x02")
    (start,) = struct.unpack_from("<I", once, 4)
    assert read(tiff(tags, b"\x01\x02", following=start)).info.width == 2


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (short(259, 4), "compression 4; read are"),
        (short(259, 6), "compression 6; read are"),
        (short(259, 50000), "compression 50000; read are"),
        (short(262, 8), "colours of kind 8"),
        (short(262, 6), "colours of kind 6"),
        (short(258, 12), "12 bits in format 1"),
        (short(258, 32), "32 bits in format 1"),
        (short(339, 3), "8 bits in format 3"),
        (short(277, 7), "7 samples a pixel"),
        (short(277, 60_000), "60,000 samples a pixel"),
        (short(258, *[8] * 40), "40 values of type 3 under tag 258"),
        (long(278, 0), "parts of 4x0"),
        (long(278, 1), "1 strips or tiles where its size makes 4"),
        (long(273, 8, 8), "2 strips or tiles where its size makes 1"),
        ((256, SHORT, 0, b""), "0 values of type 3 under tag 256"),
        ((256, UNDEFINED, 1, b"\4"), "no whole numbers under tag 256"),
        ((256, 99, 1, b"\4"), "type 99 under tag 256"),
        (long(256, 0), "at least 1x1"),
        (long(256, 4000), "a strip or tile lies behind its end"),
    ],
)
def test_what_is_not_read_is_said(other: Tag, said: str) -> None:
    read(tiff(picture(4, 4), bytes(16)))
    with pytest.raises(ImageInvalid, match=said):
        read(tiff(changed(picture(4, 4), other), bytes(16)))


def test_huge_size_costs_nothing() -> None:
    tags = changed(picture(4, 4), long(256, 50_000), long(257, 50_000), short(259, 5))
    with pytest.raises(ImageTooLarge, match="50000x50000"):
        read(tiff(tags, bytes(16)))


def test_huge_tile_of_a_small_image() -> None:
    tags = changed(picture(4, 4), long(322, 2**16), long(323, 2**16), long(324, 8), long(325, 16))
    with pytest.raises(ImageInvalid, match="parts of 65,536x65,536"):
        read(tiff(tags, bytes(16)))


def test_packed_strips_on_each_other() -> None:
    row = zlib.compress(bytes(10_000))
    tags = changed(
        picture(10_000, 100),
        short(259, 8),
        long(278, 1),
        long(273, *[8] * 100),
        long(279, *[len(row)] * 100),
    )
    with pytest.raises(ImageInvalid, match="bytes together in a file of"):
        read(tiff(tags, row), max_pixels=2**20)


def test_strips_outside_of_the_file() -> None:
    tags = changed(picture(4, 4), short(259, 8), long(273, 2**31))
    with pytest.raises(ImageInvalid, match="a strip or tile lies behind its end"):
        read(tiff(tags, bytes(16)))


def test_more_strips_than_anybody_needs() -> None:
    count = MAX_PARTS + 1
    tags = changed(picture(1, count), long(278, 1), long(273, *[8] * count))
    with pytest.raises(ImageInvalid, match=f"{count:,} values of type 4 under tag 273"):
        read(tiff(tags, bytes(count)))


def test_unknown_tags_do_not_reach_the_decoder() -> None:
    blob = (50_000, UNDEFINED, 2**31, struct.pack("<I", 8))
    nested = long(34665, 8)  # an EXIF directory in the midst of the pixels
    found = read(tiff(changed(picture(4, 4), blob, nested, long(330, 8)), bytes(range(16))))
    assert found.pixels_HWC[..., 0].ravel().tolist() == list(range(16))
