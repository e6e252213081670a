"""Images that are served: ordinary ones are decoded here, all others in a confined process."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from PIL import Image, ImageCms

from core.errors import ImageInvalid, ImageTooCostly, ImageTooLarge
from core.images.decoding import decode, decode_ordinary
from core.images.pool import DecodeLimits, DecodePool
from core.images.reader import ImageReader
from tests.unit.images.image_samples import chunk, encode, exif, gradient, ihdr, png
from tests.unit.images.test_pool import COSTLY, HUGE

MAX_BYTES, MAX_PIXELS = 2**24, 5 * 10**7
LIMITS = DecodeLimits(max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS, seconds=20.0, memory_mb=1024)
PICTURE = gradient(90, 70)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PROGRESSIVE = encode(PICTURE, "JPEG", progressive=True)
WIDE = encode(gradient(1200, 1000), "JPEG", progressive=True)
WIDE_SCAN = WIDE[WIDE.rindex(b"\xff\xda") : -2]

ORDINARY = {
    "jpeg": encode(PICTURE, "JPEG"),
    "grey jpeg": encode(PICTURE.convert("L"), "JPEG"),
    "progressive jpeg": PROGRESSIVE,
    "jpeg lying on its side": encode(PICTURE, "JPEG", exif=exif(6)),
    "png": encode(PICTURE),
    "png with alpha": encode(PICTURE.convert("RGBA")),
    "png with palette": encode(PICTURE.quantize(16)),
    "png of one bit": encode(PICTURE.convert("1")),
    "png lying on its side": encode(PICTURE, exif=exif(8)),
}
ODD = {
    "webp": encode(PICTURE, "WEBP"),
    "tiff": encode(PICTURE, "TIFF"),
    "bmp": encode(PICTURE, "BMP"),
    "gif": encode(PICTURE.quantize(16), "GIF"),
    "png of 16 bits": png(ihdr(3, 1, 16, 0), b"\0" + bytes(range(6))),
    "png with profile": encode(PICTURE, icc_profile=SRGB),
    "png with packed text": png(
        ihdr(1, 1, 8, 0), b"\0\0", chunk(b"zTXt", b"k\0\0" + zlib.compress(b"words"))
    ),
    "png of many chunks": png(ihdr(1, 1, 8, 0), b"\0\0", chunk(b"tEXt", b"k\0v") * 2000),
    "jpeg of inks": encode(PICTURE.convert("CMYK"), "JPEG"),
    "jpeg with profile": encode(PICTURE, "JPEG", icc_profile=SRGB),
    "jpeg of many scans": WIDE[:-2] + WIDE_SCAN * 20 + b"\xff\xd9",
    "png of many pixels": encode(Image.new("1", (3000, 2000))),
    "jpeg of many bytes": ORDINARY["jpeg"] + bytes(5 * 2**20),
}


@pytest.fixture
def reader() -> Iterator[ImageReader]:
    with closing(ImageReader(DecodePool(LIMITS, processes=1))) as made:
        yield made


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_images_need_no_process(reader: ImageReader, name: str) -> None:
    begun = reader.begin(ORDINARY[name])
    assert isinstance(begun, np.ndarray)
    np.testing.assert_array_equal(begun, by_decode(ORDINARY[name]))
    assert begun.flags.c_contiguous


@pytest.mark.parametrize("name", ODD)
def test_all_others_come_from_one_the_same(reader: ImageReader, name: str) -> None:
    begun = reader.begin(ODD[name])
    assert callable(begun)
    np.testing.assert_array_equal(begun(), by_decode(ODD[name]))


def by_decode(data: bytes) -> np.ndarray:
    return decode(data, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS).pixels_HWC


def test_rubbish_behind_the_last_row_is_left_to_a_process(reader: ImageReader) -> None:
    packer = zlib.compressobj()
    rows = packer.compress(bytes(2)) + packer.flush(zlib.Z_FULL_FLUSH) + b"\xff" * 100_000
    parts = chunk(b"IHDR", ihdr(1, 1, 8, 0)) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    assert decode_ordinary(b"\x89PNG\r\n\x1a\n" + parts, max_pixels=MAX_PIXELS) is None
    begun = reader.begin(b"\x89PNG\r\n\x1a\n" + parts)
    assert callable(begun)
    with pytest.raises(ImageInvalid):
        begun()


def test_refusals_are_those_of_decode(reader: ImageReader) -> None:
    for data in (b"", b"text", HUGE, ORDINARY["png"][:60], ORDINARY["jpeg"][:300]):
        with pytest.raises(ImageInvalid) as direct:
            decode(data, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
        with pytest.raises(type(direct.value)) as served:
            reader.read(data)
        assert str(served.value) == str(direct.value)
    with pytest.raises(ImageTooLarge, match="16,777,217 bytes; at most 16,777,216"):
        reader.begin(bytes(MAX_BYTES + 1))


def test_narrower_limits_hold_for_ordinary_images_too() -> None:
    narrow = DecodeLimits(max_bytes=10_000, max_pixels=5000, seconds=20.0, memory_mb=1024)
    with closing(ImageReader(DecodePool(narrow, processes=1))) as reader:
        with pytest.raises(ImageTooLarge, match="at most 5,000"):
            reader.read(ORDINARY["png"])
        with pytest.raises(ImageTooLarge, match="at most 10,000"):
            reader.read(ORDINARY["png"] + bytes(10_000))


def test_a_costly_image_ends_no_process_but_its_own() -> None:
    limits = DecodeLimits(max_bytes=2**24, max_pixels=10**8, seconds=0.1, memory_mb=1024)
    with closing(ImageReader(DecodePool(limits, processes=1))) as reader:
        with pytest.raises(ImageTooCostly, match=r"took more than the 0\.1 s"):
            reader.read(COSTLY)
        np.testing.assert_array_equal(reader.read(ODD["webp"]), by_decode(ODD["webp"]))
