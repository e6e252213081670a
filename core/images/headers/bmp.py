"""The header of a BMP file: Windows' and OS/2's variants, plain or run-length coded."""

from __future__ import annotations

import struct

from core.errors import ImageInvalid
from core.images.formats import BMP
from core.images.headers.header import Header, check_size, truncated

CORE_HEADER = 12
HEADERS = frozenset({40, 52, 56, 64, 108, 124})
PLAIN, RLE8, RLE4, MASKS = range(4)
# Bits a pixel by what the header calls compression.
DEPTHS = {PLAIN: (1, 4, 8, 16, 24, 32), RLE8: (8,), RLE4: (4,), MASKS: (16, 24, 32)}
# Runs are decoded in Python, one by one: about a second for this much.
MAX_RUN_BYTES, MAX_RUN_PIXELS = 2**20, 2**22


def bmp_header(data: bytes, max_pixels: int) -> Header:
    """Size and depth of a variant that is read; the rows that it announces are there."""
    if len(data) < 14 + CORE_HEADER + 4:
        raise truncated("BMP", len(data), "its header is cut off")
    offset, kind = struct.unpack_from("<II", data, 10)
    if kind == CORE_HEADER:
        width, height, _, bits = struct.unpack_from("<4H", data, 18)
        compression = PLAIN
    elif kind in HEADERS:
        if len(data) < 14 + kind:
            raise truncated("BMP", len(data), "its header is cut off")
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    else:
        raise ImageInvalid(
            f"the BMP image has a header of {kind:,} bytes; "
            f"known are {CORE_HEADER} and {', '.join(map(str, sorted(HEADERS)))}"
        )
    if bits not in DEPTHS.get(compression, ()):
        raise ImageInvalid(
            f"the BMP image has {bits} bits a pixel with compression {compression}, "
            "which is not read; save it uncompressed, with 24 bits"
        )
    height = abs(height)
    check_size(width, height, max_pixels)
    _check_rows(data, offset, width * bits, height, coded=compression in (RLE8, RLE4))
    if compression in (RLE8, RLE4) and width * height > MAX_RUN_PIXELS:
        raise _too_long()
    return Header(format=BMP, width=width, height=height)


def _check_rows(data: bytes, offset: int, row_bits: int, height: int, *, coded: bool) -> None:
    if coded:
        if len(data) - offset > MAX_RUN_BYTES:
            raise _too_long()
        return
    needed = offset + (row_bits + 31) // 32 * 4 * height
    if needed > len(data):
        raise truncated("BMP", len(data), f"its header announces {needed:,}")


def _too_long() -> ImageInvalid:
    return ImageInvalid(
        f"the BMP image is run-length coded and large; at most {MAX_RUN_PIXELS:,} pixels in "
        f"{MAX_RUN_BYTES:,} bytes are read that way, so save it uncompressed or as PNG"
    )
