"""Small pictures for people, made when somebody first looks and kept in the blob store."""

from __future__ import annotations

import hashlib
from io import BytesIO
from threading import BoundedSemaphore

from PIL import Image

from core.errors import BlobNotFound, Overloaded
from core.images.decoding import DECODER_VERSION, decode
from core.images.recording import image_key
from core.storage.store import BlobStore

SIZES = (64, 128, 256, 512)
MEDIA_TYPE = "image/webp"
# Part of a thumbnail's key: another way to draw them has another number.
VERSION = 1
QUALITY = 80
EFFORT = 2  # of the encoder, 0 to 6: a third of the time of the default for a tenth more bytes
LOSSLESS_UP_TO = 64
# An image of the largest size takes some hundred MB while it is decoded.
AT_ONCE = 2
PATIENCE_SECONDS = 5.0
_PLACES = BoundedSemaphore(AT_ONCE)


def thumbnail_digest(sha256: str, size: int) -> str:
    """What names the thumbnail of an image: its key's digest and its ETag."""
    facts = f"{sha256} {size} {VERSION} {DECODER_VERSION}"
    return hashlib.sha256(facts.encode()).hexdigest()


def thumbnail_keys(sha256: str) -> list[str]:
    """Where the thumbnails of an image may lie in the blob store; to be deleted with it."""
    return [f"thumbnails/{thumbnail_digest(sha256, size)}" for size in SIZES]


def thumbnail(store: BlobStore, sha256: str, size: int) -> bytes:
    """The image within a square of so many pixels, as WebP; never larger than the image.

    Raises:
        Overloaded: Others are being made, and it did not come to this one in time.
        BlobNotFound: The store has no such image.
    """
    key = f"thumbnails/{thumbnail_digest(sha256, size)}"
    try:
        return store.get(key)
    except BlobNotFound:
        pass
    if not _PLACES.acquire(timeout=PATIENCE_SECONDS):
        raise Overloaded("other thumbnails are being made; try again in a moment")
    try:
        made = _draw(store.get(image_key(sha256)), size)
    finally:
        _PLACES.release()
    store.put(key, made)
    return made


def _draw(data: bytes, size: int) -> bytes:
    # The upload verified size and pixels; the blob is found by its hash.
    image = Image.fromarray(decode(data, max_bytes=len(data), max_pixels=2**62).pixels_HWC)
    small = max(image.size) <= LOSSLESS_UP_TO
    image.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
    written = BytesIO()
    # Loss shows in pictures of a few pixels, which a browser enlarges, and saves nothing there.
    image.save(written, "WEBP", quality=QUALITY, method=EFFORT, lossless=small)
    return written.getvalue()
