"""Whatever the bytes: an image or ImageInvalid, never another exception."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from core.errors import ImageInvalid
from core.images.decoding import decode
from core.images.headers import orientation
from tests.unit.images.raw_samples import bmp

MUTATIONS = 2000
MAGICS = (b"BM", b"GIF89a", b"GIF87a\1\0\1\0\0\0\0", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08")
INTERESTING = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def seeds() -> dict[str, bytes]:
    noise_HWC = np.random.default_rng(7).integers(0, 256, (9, 13, 4), dtype=np.uint8)
    rgba = Image.fromarray(noise_HWC)
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "made in a test"
    wide_HW = noise_HWC[..., 0].astype(np.uint16) * 257
    return {
        "jpeg": encode(rgb, "JPEG", exif=exif, icc_profile=bytes(300)),
        "jpeg-progressive": encode(rgb, "JPEG", progressive=True),
        "jpeg-cmyk": encode(rgb.convert("CMYK"), "JPEG"),
        "png-rgba": encode(rgba, "PNG", exif=exif),
        "png-palette": encode(rgb.quantize(8), "PNG", transparency=bytes([0, 128, 255])),
        "png-16": encode(Image.fromarray(wide_HW), "PNG"),
        "png-1": encode(grey.convert("1"), "PNG"),
        "apng": encode(rgb, "PNG", save_all=True, append_images=[grey.convert("RGB")]),
        "webp": encode(rgb, "WEBP", exif=exif),
        "webp-lossless": encode(rgba, "WEBP", lossless=True),
        "webp-animated": encode(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(180)]),
        "tiff": encode(rgba, "TIFF", exif=exif, icc_profile=bytes(300)),
        "tiff-lzw-16": encode(Image.fromarray(wide_HW), "TIFF", compression="tiff_lzw"),
        "tiff-jpeg": encode(rgb, "TIFF", compression="jpeg"),
        "tiff-palette": encode(rgb.quantize(8), "TIFF", compression="packbits"),
        "bmp": encode(rgb, "BMP"),
        "bmp-runs": bmp(9, 2, b"\x09\x01\0\0\4\0\0\3\0\2\1\0\0\1", bits=8, compression=1),
        "gif": encode(rgb, "GIF", transparency=3, interlace=1),
        "gif-animated": encode(rgb, "GIF", save_all=True, append_images=[rgb.rotate(180)]),
    }


SEEDS = seeds()


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One to six random edits: set, insert, delete, repeat or cut."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        # Headers decide about most of what happens, so half of the edits hit the first bytes.
        at = chance.randrange(min(len(changed), 80) if chance.random() < 0.5 else len(changed))
        edits: tuple[Callable[[], None], ...] = (
            lambda at=at: changed.__setitem__(at, chance.choice(INTERESTING)),  # type: ignore[misc]
            lambda at=at: changed.__setitem__(at, chance.randrange(256)),  # type: ignore[misc]
            lambda at=at: changed.__setitem__(at, changed[at] ^ 1 << chance.randrange(8)),  # type: ignore[misc]
            lambda at=at: changed.insert(at, chance.randrange(256)),  # type: ignore[misc]
            lambda at=at: changed.__delitem__(slice(at, at + chance.randint(1, 8))),  # type: ignore[misc]
            lambda at=at: changed.extend(changed[at : at + 64]),  # type: ignore[misc]
        )
        chance.choice(edits)()
        if len(changed) < 2:
            break
    return bytes(changed)


@pytest.mark.parametrize("name", SEEDS)
def test_mutated_files_decode_or_are_invalid(name: str) -> None:
    chance = random.Random(name)
    refused = 0
    for _ in range(MUTATIONS):
        data = mutate(SEEDS[name], chance)
        try:
            image = decode(data, max_bytes=2**20, max_pixels=2**18)
        except ImageInvalid:
            refused += 1
        else:
            height, width, channels = image.pixels_HWC.shape
            assert (width, height, channels) == (image.info.width, image.info.height, 3)
    assert 0 < refused < MUTATIONS


def test_random_bytes_after_a_magic_number() -> None:
    chance = random.Random(3)
    for magic in (
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\x10\0\0\0WEBPVP8X",
        b"RIFF",
        *MAGICS,
    ):
        for _ in range(300):
            with pytest.raises(ImageInvalid):
                decode(magic + chance.randbytes(200), max_bytes=2**20, max_pixels=2**18)


def test_orientation_of_any_bytes() -> None:
    chance = random.Random(4)
    for _ in range(5000):
        tail = chance.randbytes(chance.randrange(40))
        head = chance.choice((b"Exif\0\0II*\0", b"MM\0*\0\0\0\x08", b"II*\0\x08\0\0\0", b""))
        assert 1 <= orientation(head + tail) <= 8
