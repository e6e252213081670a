"""The header of a WebP file."""

from __future__ import annotations

import struct

from core.errors import ImageInvalid
from core.images.formats import WEBP
from core.images.headers.header import Header, check_size, truncated


def webp_header(data: bytes, max_pixels: int) -> Header:
    """Size of the canvas; the file is as long as it says."""
    if len(data) < 30:
        raise ImageInvalid(f"the WebP image is truncated after {len(data):,} bytes")
    declared = 8 + int.from_bytes(data[4:8], "little")
    if declared > len(data):
        raise truncated("WebP", len(data), f"its header announces {declared:,}")
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L" and data[20] == 0x2F:
        packed = int.from_bytes(data[21:25], "little")
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    elif kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise ImageInvalid(f"the WebP image has an unknown or malformed first chunk {kind!r}")
    check_size(width, height, max_pixels)
    return Header(format=WEBP, width=width, height=height)
