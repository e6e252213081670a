"""Small pictures for people, made when somebody first looks and kept in the blob store."""

from __future__ import annotations

import hashlib
from threading import BoundedSemaphore

from core.errors import BlobNotFound, Overloaded
from core.images.decoding import DECODER_VERSION
from core.images.pool import DecodePool
from core.images.recording import image_key
from core.storage.store import BlobStore

SIZES = (64, 128, 256, 512)
MEDIA_TYPE = "image/webp"
# Part of a thumbnail's key: another way to draw them has another number.
VERSION = 1
# Uploads are decoded in the same processes, and are not to wait for a page of pictures.
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


def thumbnail(store: BlobStore, decoders: DecodePool, sha256: str, size: int) -> bytes:
    """The image within a square of so many pixels, as WebP; never larger than the image.

    Raises:
        Overloaded: Others are being made, and it did not come to this one in time.
        ImageInvalid: The limits on decoding are narrower than when it was uploaded.
        DecodersUnavailable: The processes that decode do not start.
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
        made = decoders.draw(store.get(image_key(sha256)), side=size)
    finally:
        _PLACES.release()
    store.put(key, made)
    return made
