"""The header of a PNG file, and the walk over its chunks."""

from __future__ import annotations

import struct

from core.errors import ImageInvalid
from core.images.formats import PNG
from core.images.headers.header import MAX_SEGMENTS, Header, check_size, truncated

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
PNG_ORDINARY = frozenset({b"IDAT", b"fdAT", b"fcTL"})
# Chunks without anything packed but pixels; encoders write some hundred at most.
PNG_PLAIN = frozenset(
    b"IHDR PLTE tRNS IDAT IEND gAMA cHRM sRGB sBIT bKGD hIST pHYs tIME tEXt eXIf".split()
)
PNG_PLAIN_CHUNKS = 1_000


def png_header(data: bytes, max_pixels: int) -> Header:
    """Size and depth; the file has an end chunk and few chunks besides its image data."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise ImageInvalid(
            f"the PNG image is truncated after {len(data):,} bytes or has no IHDR header"
        )
    width, height, depth = struct.unpack_from(">IIB", data, 16)
    check_size(width, height, max_pixels)
    position, count, others, animations, plain = 8, 0, 0, 0, True
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"IEND":
            work = width * height if plain and count < PNG_PLAIN_CHUNKS else None
            return Header(format=PNG, width=width, height=height, bit_depth=depth, work=work)
        count += 1
        plain = plain and name in PNG_PLAIN
        others += name not in PNG_ORDINARY
        if name == b"acTL":
            animations += 1
            frames = int.from_bytes(data[position + 8 : position + 12])
            if animations > 1 or not 0 < frames <= 0x80000000:
                raise ImageInvalid("the PNG image has a malformed animation header (acTL)")
        if others > MAX_SEGMENTS:
            raise ImageInvalid(
                f"the PNG image has more than {MAX_SEGMENTS:,} chunks besides its image data"
            )
        position += 12 + length
    raise truncated("PNG", len(data), "its end chunk (IEND) is missing")
