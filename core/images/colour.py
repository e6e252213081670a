"""Embedded colour profiles: pixels of other colour spaces become sRGB."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image, ImageCms

# Profiles of presses have 0.5 to 3 MB, those of cameras and screens a few kB.
MAX_PROFILE_BYTES = 4 * 2**20
HEADER_BYTES = 128
SIGNATURE = b"acsp"
# Chains of any length that are computed for each of thousands of colours; screens and presses
# have none.
PROGRAM = b"mpet"
SPACES: Final = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}
# A profile is sRGB when it changes no colour by more; names and bytes of sRGB profiles differ.
SAME_LEVELS = 2
REMEMBERED = 8

# What Pillow raises on a profile that the library cannot use.
PROFILE_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError, MemoryError)

Conversion = Callable[[Image.Image], Image.Image]


def conversion(profile: bytes | None, mode: str) -> Conversion | None:
    """What turns pixels of mode L, RGB or CMYK into sRGB, L staying L; None for nothing to do.

    That is so without a profile, for sRGB itself, and for a profile that is damaged, too large or
    of other pixels: odd metadata does not make an image unusable.
    """
    if profile is None or not HEADER_BYTES < len(profile) <= MAX_PROFILE_BYTES:
        return None
    if profile[36:40] != SIGNATURE or profile[16:20] != SPACES.get(mode) or PROGRAM in profile:
        return None
    return _conversion(bytes(profile), mode)


@lru_cache(maxsize=REMEMBERED)
def _conversion(profile: bytes, mode: str) -> Conversion | None:
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            # One transform serves all threads.
            flags=ImageCms.Flags.NOCACHE,
        )
        if mode == "CMYK":
            return transform.apply
        probe = _probe(mode)
        found = transform.apply(probe)
    except PROFILE_ERRORS:
        return None
    expected_HWC, found_HWC = (np.asarray(image.convert("RGB"), int) for image in (probe, found))
    if np.abs(found_HWC - expected_HWC).max() <= SAME_LEVELS:
        return None
    if mode == "L":
        return partial(_look_up, table=found.getchannel("G").tobytes())
    return transform.apply


def _probe(mode: str) -> Image.Image:
    """All greys, or colours on a grid."""
    if mode == "L":
        return Image.frombytes("L", (256, 1), bytes(range(256)))
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    return Image.fromarray(np.ascontiguousarray(grid.reshape(27, 27, 3)))


def _look_up(image: Image.Image, *, table: bytes) -> Image.Image:
    return image.point(list(table))
