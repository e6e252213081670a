"""A small picture of an image, as WebP; drawn where files are decoded."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from core.images.decoding import decode

QUALITY = 80
EFFORT = 2  # of the encoder, 0 to 6: a third of the time of the default for a tenth more bytes
LOSSLESS_UP_TO = 64


def draw(data: bytes, *, side: int, max_bytes: int, max_pixels: int) -> bytes:
    """The whole image within a square of so many pixels; never larger than the image.

    Raises:
        ImageInvalid: As `decode`.
    """
    image = Image.fromarray(decode(data, max_bytes=max_bytes, max_pixels=max_pixels).pixels_HWC)
    small = max(image.size) <= LOSSLESS_UP_TO
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    written = BytesIO()
    # Loss shows in pictures of a few pixels, which a browser enlarges, and saves nothing there.
    image.save(written, "WEBP", quality=QUALITY, method=EFFORT, lossless=small)
    return written.getvalue()
