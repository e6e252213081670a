"""Image headers read without a decoder: sizes, orientation, and tricks that cost time."""

from __future__ import annotations

from collections.abc import Callable

from core.images.headers.bmp import bmp_header
from core.images.headers.exif import orientation
from core.images.headers.gif import gif_header
from core.images.headers.header import Header, check_size
from core.images.headers.jpeg import jpeg_header
from core.images.headers.png import PNG_MAGIC, png_header
from core.images.headers.tiff import tiff_header
from core.images.headers.webp import webp_header

__all__ = ["PNG_MAGIC", "Header", "check_size", "orientation", "read_header"]

READERS: tuple[tuple[bytes, Callable[[bytes, int], Header]], ...] = (
    (b"\xff\xd8\xff", jpeg_header),
    (PNG_MAGIC, png_header),
    (b"BM", bmp_header),
    (b"II*\x00", tiff_header),
    (b"MM\x00*", tiff_header),
    (b"GIF87a", gif_header),
    (b"GIF89a", gif_header),
)


def read_header(data: bytes, *, max_pixels: int) -> Header | None:
    """The header of an image file; None if it is of none of the formats that are read.

    Raises:
        ImageTooLarge: It has more pixels; said before the rest of the file is looked at.
        ImageInvalid: The header is cut off or malformed, the end of the file is missing, the
            variant is not read, or the file has more parts than any sound one.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return webp_header(data, max_pixels)
    reader = next((reader for magic, reader in READERS if data.startswith(magic)), None)
    return None if reader is None else reader(data, max_pixels)
