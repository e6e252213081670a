"""BMP and GIF: every variant that is read, and the lies in their headers."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from core.errors import ImageInvalid, ImageTooLarge
from tests.unit.images.image_samples import encode, gradient, read
from tests.unit.images.raw_samples import bmp, gif, gif_codes, gif_frame

RED, BLUE, WHITE = [255, 0, 0], [0, 0, 255], [255, 255, 255]
PALETTE = bytes([0, 0, 255, 0, 255, 0, 0, 0])  # red and blue, as BMP has them


@pytest.mark.parametrize("kind", ["BMP", "GIF"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_what_pillow_writes(kind: str, mode: str) -> None:
    image = gradient(37, 21).quantize(16) if mode == "P" else gradient(37, 21).convert(mode)
    if (kind, mode) == ("GIF", "RGB"):
        image = gradient(16, 16)  # 256 colours, so none is lost
    decoded = read(encode(image, kind))
    assert decoded.info.format == kind
    np.testing.assert_array_equal(decoded.pixels_HWC, np.asarray(image.convert("RGB")))
    assert decoded.info.greyscale == (mode in ("1", "L"))


@pytest.mark.parametrize("height", [2, -2], ids=["from below", "from above"])
def test_bmp_rows_in_both_directions(height: int) -> None:
    rows = bytes([0, 0, 255, 0]) + bytes([255, 0, 0, 0])  # a red row, then a blue one
    decoded = read(bmp(1, height, rows))
    assert decoded.pixels_HWC[:, 0].tolist() == ([BLUE, RED] if height > 0 else [RED, BLUE])


def test_bmp_of_os2() -> None:
    head = b"BM" + struct.pack("<IHHI", 32 + 8, 0, 0, 32) + struct.pack("<I4H", 12, 2, 1, 1, 1)
    decoded = read(head + bytes([0, 0, 255, 255, 0, 0]) + bytes([0b01000000, 0, 0, 0]) + bytes(4))
    assert decoded.pixels_HWC[0].tolist() == [RED, BLUE]


@pytest.mark.parametrize(
    ("masks", "greens"),
    [((), 5), ((0xF800, 0x7E0, 0x1F), 6), ((0x7C00, 0x3E0, 0x1F), 5)],
    ids=["plain", "565", "555"],
)
def test_bmp_of_sixteen_bits(masks: tuple[int, ...], greens: int) -> None:
    red, green, blue = 21, 2**greens - 10, 7
    pixel = red << 5 + greens | green << 5 | blue
    data = bmp(
        1,
        1,
        struct.pack("<HH", pixel, 0),
        bits=16,
        compression=3 if masks else 0,
        masks=struct.pack(f"<{len(masks)}I", *masks),
    )
    expected = [red / 31 * 255, green / (2**greens - 1) * 255, blue / 31 * 255]
    np.testing.assert_allclose(read(data).pixels_HWC[0, 0], expected, atol=1)


def test_bmp_of_32_bits_without_alpha_is_opaque() -> None:
    data = bmp(1, 1, bytes([0, 0, 255, 0]), bits=32)
    assert read(data).pixels_HWC[0, 0].tolist() == RED


@pytest.mark.parametrize(
    ("bits", "compression", "runs"),
    [
        (8, 1, b"\x03\x01\x00\x00\x01\x00\x00\x02\x00\x00\x00\x01"),
        (4, 2, b"\x03\x11\x00\x00\x03\x00\x00\x00\x00\x01"),
    ],
    ids=["RLE8", "RLE4"],
)
def test_bmp_in_runs(bits: int, compression: int, runs: bytes) -> None:
    if bits == 8:
        runs = b"\x03\x01\x00\x00\x03\x00\x00\x00\x00\x01"
    decoded = read(bmp(3, 2, runs, bits=bits, compression=compression, palette=PALETTE))
    assert decoded.pixels_HWC[:, 0].tolist() == [RED, BLUE]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (bmp(4, 4, bytes(47)), "truncated after 101 bytes: its header announces 102"),
        (bmp(-4, 4, bytes(48)), "at least 1x1"),
        (bmp(4, 0, b""), "at least 1x1"),
        (bmp(4, -(2**31), bytes(48)), "4x2147483648"),
        (bmp(1, 1, bytes(4), bits=23), "23 bits a pixel with compression 0"),
        (bmp(1, 1, bytes(4), compression=4), "24 bits a pixel with compression 4"),
        (bmp(1, 1, bytes(4)).replace(b"(\0\0\0", b"\x11\0\0\0", 1), "a header of 17 bytes"),
        (bmp(3000, 3000, b"\0\1", bits=8, compression=1, palette=PALETTE), "run-length"),
        (bmp(8, 8, bytes(2**21), bits=8, compression=1, palette=PALETTE), "run-length"),
        (bmp(8, 8, b"\0\1", bits=8, compression=1, palette=PALETTE), "damaged"),
        (b"BM" + b"\xff" * 60, "BMP image has a header of 4,294,967,295 bytes"),
    ],
)
def test_bmp_that_lies(data: bytes, said: str) -> None:
    with pytest.raises(ImageInvalid, match=said):
        read(data, max_bytes=2**22, max_pixels=10**8)


def test_bmp_of_absurd_size() -> None:
    with pytest.raises(ImageTooLarge, match="50000x50000"):
        read(bmp(50_000, 50_000, bytes(100)))


def test_gif_transparency_is_white() -> None:
    image = Image.new("P", (4, 1))
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putdata([0, 1, 0, 1])
    decoded = read(encode(image, "GIF", transparency=0))
    assert decoded.pixels_HWC[0].tolist() == [WHITE, RED, WHITE, RED]


def test_gif_picture_that_does_not_fill_the_screen() -> None:
    data = gif(4, 3, gif_frame(1, 1, 2, 1, gif_codes([1, 1])))
    decoded = read(data)
    assert (decoded.info.width, decoded.info.height) == (4, 3)
    shown = (decoded.pixels_HWC == RED).all(axis=-1)
    assert shown.tolist() == [[False] * 4, [False, True, True, False], [False] * 4]
    assert (decoded.pixels_HWC[~shown] == 255).all()


def test_gif_picture_beyond_the_screen() -> None:
    decoded = read(gif(0, 0, gif_frame(1, 0, 2, 1, gif_codes([1, 0]))))
    assert decoded.pixels_HWC[0].tolist() == [WHITE, RED, [0, 0, 0]]


def test_gif_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read(data).pixels_HWC[4, 4].tolist() == RED


FRAME = gif_frame(0, 0, 2, 1, gif_codes([1, 1]))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (gif(2, 1), "no picture"),
        (gif(2, 1, FRAME)[:-1], "its end mark is missing"),
        (gif(2, 1, FRAME)[:-3], "the end of a block is missing"),
        (gif(2, 1, b"x", FRAME), "an unknown block 78 at 19"),
        (gif(2, 1, gif_frame(0, 0, 0, 1, gif_codes([1]))), "at least 1x1|damaged"),
        (gif(2, 1, gif_frame(0, 0, 2, 2, gif_codes([1, 1]))), "truncated|damaged"),
        (gif(2, 1, FRAME * 10_001), "more than 10,000 blocks"),
        (gif(2, 1, b"!\xfe" + b"\1x" * 1_000_001 + b"\0", FRAME), "more than 1,000,000 sub-blocks"),
    ],
)
def test_gif_that_lies(data: bytes, said: str) -> None:
    read(gif(2, 1, FRAME))
    with pytest.raises(ImageInvalid, match=said):
        read(data, max_bytes=2**24)


@pytest.mark.parametrize("at", [0, 1], ids=["screen", "picture"])
def test_gif_of_absurd_size(at: int) -> None:
    sides = [(60_000, 60_000), (1, 1)]
    data = gif(*sides[at], gif_frame(0, 0, *sides[1 - at], gif_codes([1])))
    with pytest.raises(ImageTooLarge, match="60000x60000"):
        read(data)


def test_megabytes_of_comments_cost_nothing() -> None:
    comment = b"!\xfe" + b"\xff" + bytes(255)
    data = gif(2, 1, comment + (b"\xff" + bytes(255)) * 100_000 + b"\0", FRAME)
    assert read(data, max_bytes=2**25).pixels_HWC[0].tolist() == [RED, RED]
