"""Decoded images: made of the very bytes that were uploaded, or not at all."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Generator
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from PIL import Image

from core.datasets.cache import Pixels, decoded, open_cache
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


@pytest.mark.parametrize("cores", [2, 3, 40])
def test_images_come_in_order_and_none_is_decoded_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    store = FolderStore(tmp_path / "blobs")
    store.prepare()
    sha256s = []
    for value in range(200):
        data = png(value)
        sha256s.append(hashlib.sha256(data).hexdigest())
        store.put(image_key(sha256s[-1]), data)
    images = decoded(store, sha256s, lambda pixels_HWC: pixels_HWC)
    assert [int(image[0, 0, 0]) for image in images] == list(range(200))

    late, closing = [], Event()

    def slow(pixels_HWC: Pixels) -> Pixels:
        if closing.is_set():
            late.append(pixels_HWC)
        time.sleep(0.02)
        return pixels_HWC

    images = decoded(store, sha256s, slow)
    next(images)
    closing.set()
    assert isinstance(images, Generator)
    images.close()
    assert len(late) <= cores, "a thread went on after the image that it was at"
