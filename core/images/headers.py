"""Image headers read without a decoder: sizes, orientation, and tricks that cost time."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final, Literal

from core.errors import ImageInvalid

JPEG: Final = "JPEG"
PNG: Final = "PNG"
WEBP: Final = "WEBP"

# Each segment or chunk costs a decoder time and memory of its own; a file of 32 MB has room for
# eight million. Sound files have some tens, motion photos and screenshots with history hundreds.
MAX_SEGMENTS = 10_000
# Each scan of a progressive JPEG goes over the whole image: a small file can ask for hours.
# Encoders write 10 to 20.
MAX_SCANS = 100
# Bytes between segments are skipped one by one by the decoder.
MAX_JUNK = 65_536

# In entropy-coded data 0xFF is followed by 0x00 or a restart marker; anything else is a marker.
SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
MARKER = re.compile(rb"\xff+[^\x00\xff]")
STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
END_OF_IMAGE, START_OF_SCAN = 0xD9, 0xDA

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
PNG_ORDINARY = frozenset({b"IDAT", b"fdAT", b"fcTL"})
ORIENTATION_TAG = 0x0112


@dataclass(frozen=True, slots=True)
class Header:
    """Size in pixels as stored (before orientation) and bits per sample."""

    format: Literal["JPEG", "PNG", "WEBP"]
    width: int
    height: int
    bit_depth: int = 8


def read_header(data: bytes) -> Header | None:
    """The header of a JPEG, PNG or WebP file; None if it is none of them.

    Raises:
        ImageInvalid: The header is cut off or malformed, the end of the file is missing, or the
            file has more segments or scans than any sound one.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_header(data)
    if data.startswith(PNG_MAGIC):
        return _png_header(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_header(data)
    return None


def _jpeg_header(data: bytes) -> Header:
    header: Header | None = None
    position, segments, scans, junk = 2, 0, 0, 0
    while found := MARKER.search(data, position):
        code = data[found.end() - 1]
        junk += found.end() - 2 - position
        position = found.end()
        segments += 1
        if segments > MAX_SEGMENTS or scans > MAX_SCANS or junk > MAX_JUNK:
            raise ImageInvalid(
                f"the JPEG image has more than {MAX_SEGMENTS:,} segments, {MAX_SCANS} scans or "
                f"{MAX_JUNK:,} stray bytes, which sound files do not have"
            )
        if code == END_OF_IMAGE and header and scans:
            return header
        if code in STANDALONE or code == END_OF_IMAGE:
            continue
        if code in FRAMES and header is None and len(data) >= position + 7:
            depth, height, width = struct.unpack_from(">BHH", data, position + 2)
            header = Header(JPEG, width, height, depth)
        if len(data) < position + 2:
            break
        position += max(2, int.from_bytes(data[position : position + 2]))
        if code == START_OF_SCAN:
            scans += 1
            end = SCAN_END.search(data, position)
            position = end.start() if end else len(data)
    missing = "end-of-image mark" if header and scans else "frame header or its image data"
    raise ImageInvalid(
        f"the JPEG image is truncated after {len(data):,} bytes: its {missing} is missing"
    )


def _png_header(data: bytes) -> Header:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise ImageInvalid(
            f"the PNG image is truncated after {len(data):,} bytes or has no IHDR header"
        )
    width, height, depth = struct.unpack_from(">IIB", data, 16)
    position, others, animations = 8, 0, 0
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"IEND":
            return Header(PNG, width, height, depth)
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
    raise ImageInvalid(
        f"the PNG image is truncated after {len(data):,} bytes: its end chunk (IEND) is missing"
    )


def _webp_header(data: bytes) -> Header:
    if len(data) < 30:
        raise ImageInvalid(f"the WebP image is truncated after {len(data):,} bytes")
    declared = 8 + int.from_bytes(data[4:8], "little")
    if declared > len(data):
        raise ImageInvalid(
            f"the WebP image is truncated after {len(data):,} bytes: "
            f"its header announces {declared:,}"
        )
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
    return Header(WEBP, width, height)


def orientation(exif: object) -> int:
    """EXIF orientation 1 to 8; 1 when there is none or the EXIF data is malformed.

    Odd metadata does not make an image unusable, so nothing is raised.
    """
    if not isinstance(exif, bytes):
        return 1
    tiff = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 1
    start = struct.unpack_from(order + "I", tiff, 4)[0]
    if start + 2 > len(tiff):
        return 1
    count = struct.unpack_from(order + "H", tiff, start)[0]
    for entry in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
        if tag == ORIENTATION_TAG:
            return value if kind == 3 and 1 <= value <= 8 else 1
    return 1
