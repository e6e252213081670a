"""TIFF, BMP and GIF files written by hand, so that tests can lie in them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

Tag = tuple[int, int, int, bytes]
SHORT, LONG, UNDEFINED = 3, 4, 7


def short(tag: int, *values: int, order: str = "<") -> Tag:
    return (tag, SHORT, len(values), struct.pack(f"{order}{len(values)}H", *values))


def long(tag: int, *values: int, order: str = "<") -> Tag:
    return (tag, LONG, len(values), struct.pack(f"{order}{len(values)}I", *values))


def tiff(tags: Sequence[Tag], body: bytes = b"", *, order: str = "<", following: int = 0) -> bytes:
    """A TIFF: header, `body` at 8, the values that do not fit into an entry, the directory."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    data = bytearray(magic + bytes(4) + body)
    entries = []
    for tag, kind, count, value in tags:
        if len(value) > 4:
            place = struct.pack(order + "I", len(data))
            data += value
        else:
            place = value.ljust(4, b"\0")
        entries.append(struct.pack(order + "HHI", tag, kind, count) + place)
    data += bytes(len(data) % 2)
    data[4:8] = struct.pack(order + "I", len(data))
    data += struct.pack(order + "H", len(entries)) + b"".join(entries)
    return bytes(data + struct.pack(order + "I", following))


def picture(
    width: int, height: int, *, bits: Sequence[int] = (8,), kind: int = 1, order: str = "<"
) -> list[Tag]:
    """The tags of an uncompressed picture in one strip at 8."""
    size = (width * sum(bits) + 7) // 8 * height
    return [
        long(256, width, order=order),
        long(257, height, order=order),
        short(258, *bits, order=order),
        short(259, 1, order=order),
        short(262, kind, order=order),
        long(273, 8, order=order),
        short(277, len(bits), order=order),
        long(278, height, order=order),
        long(279, size, order=order),
    ]


def changed(tags: Sequence[Tag], *others: Tag) -> list[Tag]:
    """The tags with some in place of those of the same number, or beside them."""
    numbers = {tag[0] for tag in others}
    return sorted([tag for tag in tags if tag[0] not in numbers] + list(others))


def bmp(
    width: int,
    height: int,
    rows: bytes,
    *,
    bits: int = 24,
    compression: int = 0,
    palette: bytes = b"",
    masks: bytes = b"",
) -> bytes:
    """A BMP of the most usual header."""
    head = struct.pack(
        "<IiiHHIIiiII",
        40,
        width,
        height,
        1,
        bits,
        compression,
        len(rows),
        0,
        0,
        len(palette) // 4,
        0,
    )
    offset = 14 + len(head) + len(masks) + len(palette)
    start = b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset)
    return start + head + masks + palette + rows


def gif_frame(left: int, top: int, width: int, height: int, codes: bytes) -> bytes:
    """An image descriptor and its data in sub-blocks; `codes` starts with the code size."""
    blocks = b"".join(
        bytes([len(codes[at : at + 255])]) + codes[at : at + 255]
        for at in range(1, len(codes), 255)
    )
    return b"," + struct.pack("<4HB", left, top, width, height, 0) + codes[:1] + blocks + b"\0"


def gif(width: int, height: int, *blocks: bytes, palette: bytes = b"\0\0\0\xff\0\0") -> bytes:
    """A GIF with two colours; blocks are frames and extensions."""
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
        + palette
        + b"".join(blocks)
        + b";"
    )


def gif_codes(indices: Sequence[int]) -> bytes:
    """LZW of colours below 4 that never builds a table: the code size, then the codes."""
    codes = [code for index in indices for code in (4, index)] + [5]
    bits = sum(code << 3 * place for place, code in enumerate(codes))
    return b"\2" + bits.to_bytes(-(-3 * len(codes) // 8), "little")
