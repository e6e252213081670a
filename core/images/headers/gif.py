"""The header of a GIF file, the walk over its blocks, and its first picture alone."""

from __future__ import annotations

import struct

from core.errors import ImageInvalid
from core.images.formats import GIF
from core.images.headers.header import MAX_SEGMENTS, Header, check_size, truncated

SCREEN_END = 13
EXTENSION, PICTURE, TRAILER, PADDING = b"!", b",", b";", b"\0"
CONTROL = 0xF9  # the extension that names the transparent colour
CONTROL_BYTES = 8
HAS_TABLE = 0x80
# Encoders fill blocks of 255 bytes: this is more than 200 MB of them.
MAX_SUB_BLOCKS = 1_000_000


class _Walk:
    """A position in the file, and how many blocks lie before it."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position
        self._blocks = self._sub_blocks = 0

    def kind(self) -> bytes:
        self._blocks += 1
        if self._blocks > MAX_SEGMENTS:
            raise ImageInvalid(
                f"the GIF image has more than {MAX_SEGMENTS:,} blocks, "
                "which sound files do not have"
            )
        return self.data[self.position : self.position + 1]

    def skip_table(self, flags: int) -> None:
        if flags & HAS_TABLE:
            self.position += 3 << (flags & 7) + 1

    def skip_sub_blocks(self) -> None:
        data, position, count = self.data, self.position, 0
        most, size = MAX_SUB_BLOCKS - self._sub_blocks, len(self.data)
        while position < size and (length := data[position]):
            position += length + 1
            count += 1
            if count > most:
                raise ImageInvalid(
                    f"the GIF image has more than {MAX_SUB_BLOCKS:,} sub-blocks, "
                    "which sound files do not have"
                )
        self._sub_blocks += count
        self.position = position + 1
        if position >= size:
            raise truncated("GIF", size, "the end of a block is missing")


def gif_header(data: bytes, max_pixels: int) -> Header:
    """Size of the screen with the first picture on it; the file has an end mark."""
    if len(data) < SCREEN_END:
        raise truncated("GIF", len(data), "its header is cut off")
    walk = _Walk(data, SCREEN_END)
    walk.skip_table(data[10])
    table = data[SCREEN_END : walk.position]
    header: Header | None = None
    control = b""
    while (kind := walk.kind()) != TRAILER:
        start = walk.position
        if kind == PADDING:
            walk.position += 1
        elif kind == EXTENSION and len(data) > start + 2:
            walk.position += 2
            walk.skip_sub_blocks()
            if data[start + 1] == CONTROL and walk.position - start == CONTROL_BYTES:
                control = data[start : walk.position]
        elif kind == PICTURE and len(data) > start + 10:
            walk.position += 10
            walk.skip_table(data[start + 9])
            walk.position += 1  # how wide codes are at first
            walk.skip_sub_blocks()
            if header is None:
                header = _first(data, start, walk.position, table + control)
                check_size(header.width, header.height, max_pixels)
        elif kind in (b"", EXTENSION, PICTURE):
            raise truncated("GIF", len(data), "its end mark is missing")
        else:
            raise ImageInvalid(f"the GIF image has an unknown block {kind.hex()} at {start:,}")
    if header is None:
        raise ImageInvalid("the GIF image has no picture in it")
    return header


def _first(data: bytes, start: int, end: int, before: bytes) -> Header:
    """The picture in a file of its own, without comments, other frames, and its place.

    What the screen shows around a picture is up to the viewer; here it is transparent, as
    browsers have it.
    """
    screen_width, screen_height = struct.unpack_from("<HH", data, 6)
    left, top, width, height = struct.unpack_from("<4H", data, start + 1)
    picture = b"GIF89a" + struct.pack("<HH", width, height) + data[10:11] + b"\0\0" + before
    picture += b"," + struct.pack("<4H", 0, 0, width, height) + data[start + 9 : end] + TRAILER
    return Header(
        format=GIF,
        width=max(screen_width, left + width),
        height=max(screen_height, top + height),
        picture=picture,
        corner=(left, top),
    )
