"""Images for tests: encoded in memory, or written by hand."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from core.images.decoding import DecodedImage, decode

MIB = 2**20


def read(data: bytes, *, max_bytes: int = MIB, max_pixels: int = MIB) -> DecodedImage:
    return decode(data, max_bytes=max_bytes, max_pixels=max_pixels)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(header: bytes, rows: bytes, *extra: bytes) -> bytes:
    """A PNG written by hand: IHDR body, filtered rows, chunks before the image data."""
    parts = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def ihdr(width: int, height: int, depth: int, colour: int) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


def exif(orientation: int, order: str = ">") -> bytes:
    magic = b"MM\x00*" if order == ">" else b"II*\x00"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\x00\x00" + magic + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


def gradient(width: int = 24, height: int = 16) -> Image.Image:
    rows_HW, columns_HW = np.mgrid[0:height, 0:width]
    red_green_blue = (columns_HW * 10, rows_HW * 15, (rows_HW + columns_HW) * 5)
    return Image.fromarray(np.stack(red_green_blue, axis=-1).astype(np.uint8))
