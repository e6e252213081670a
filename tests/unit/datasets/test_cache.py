"""Decoded images: made of the very bytes that were uploaded, or not at all."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.datasets.cache import Pixels, open_cache
from core.errors import ImageCorrupt
from core.images.recording import image_key
from core.storage.folder import FolderStore

SIDE = 8


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (value,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def opened(folder: Path, store: FolderStore, sha256s: list[str]) -> Pixels:
    return open_cache(
        folder,
        store,
        sha256s,
        canvas=lambda pixels_HWC: pixels_HWC,
        shape=(SIDE, SIDE, 3),
        on_image=lambda done, of: None,
    )


@pytest.mark.parametrize("found", ["nothing", "another image", "no image"])
def test_nothing_is_made_of_bytes_that_are_not_the_images(tmp_path: Path, found: str) -> None:
    store = FolderStore(tmp_path / "blobs")
    store.prepare()
    files = [png(value) for value in range(3)]
    sha256s = [hashlib.sha256(data).hexdigest() for data in files]
    damaged = image_key(sha256s[1])
    for sha256, data in zip(sha256s, files, strict=True):
        store.put(image_key(sha256), data)
    store.delete(damaged)
    if found != "nothing":
        store.put(damaged, png(7) if found == "another image" else b"x" * len(files[1]))

    with pytest.raises(ImageCorrupt, match=f"{sha256s[1]}.* put {damaged} back") as raised:
        opened(tmp_path / "cache", store, sha256s)
    assert raised.value.problems == ({"sha256": sha256s[1]},)
    assert not list((tmp_path / "cache").iterdir())

    store.delete(damaged)
    store.put(damaged, files[1])
    pixels_NHWC = opened(tmp_path / "cache", store, sha256s)
    assert np.array_equal(pixels_NHWC[:, 0, 0, 0], [0, 1, 2])
