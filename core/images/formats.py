"""The closed list of image formats: nothing else is handed to a decoder."""

from __future__ import annotations

from typing import Final, Literal

ImageFormat = Literal["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"]
JPEG: Final = "JPEG"
PNG: Final = "PNG"
WEBP: Final = "WEBP"
BMP: Final = "BMP"
TIFF: Final = "TIFF"
GIF: Final = "GIF"

FORMATS: tuple[ImageFormat, ...] = (JPEG, PNG, WEBP, BMP, TIFF, GIF)
SPOKEN = "JPEG, PNG, WebP, BMP, TIFF or GIF"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


def media_type(image_format: str) -> str:
    """The media type under which files of a format are served."""
    return f"image/{image_format.lower()}"
