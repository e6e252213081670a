"""Decode once: a snapshot as one uint8 memory map that every epoch reads."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray

from core.errors import BlobNotFound, ImageCorrupt
from core.images.decoding import DECODER_VERSION, decode
from core.images.recording import image_key
from core.storage.store import BlobStore

Pixels = NDArray[np.uint8]
WINDOW = 256
TOGETHER = 16  # most images a task: one each, threads would mostly wait for each other


def open_cache(
    folder: Path,
    store: BlobStore,
    sha256s: Sequence[str],
    *,
    canvas: Callable[[Pixels], Pixels],
    shape: tuple[int, int, int],
    on_image: Callable[[int, int], None],
) -> Pixels:
    """The images of a snapshot as (N, H, W, C) uint8, in the order given; made when missing.

    Args:
        folder: Where caches lie; a cache is used again by any job on the same images.
        store: The blob store that has the images.
        sha256s: The images.
        canvas: The model's preprocessing from decoded pixels to one fixed size.
        shape: That size, as (height, width, channels).
        on_image: Called with (done, of how many); may raise to stop.
    """
    facts = json.dumps([DECODER_VERSION, list(sha256s), list(shape)]).encode()
    path = folder / f"{hashlib.sha256(facts).hexdigest()}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, store, sha256s, canvas=canvas, shape=shape, on_image=on_image)
    os.utime(path)
    cached: Pixels = np.load(path, mmap_mode="r")
    return cached


def _write(
    path: Path,
    store: BlobStore,
    sha256s: Sequence[str],
    *,
    canvas: Callable[[Pixels], Pixels],
    shape: tuple[int, int, int],
    on_image: Callable[[int, int], None],
) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    os.close(handle)
    partial = Path(name)
    try:
        # Written, not mapped: on a full disk a write fails with words, a mapping with SIGBUS.
        with partial.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(sha256s), *shape)}
            np.lib.format.write_array_header_2_0(file, header)
            for index, image in enumerate(decoded(store, sha256s, canvas)):
                file.write(np.ascontiguousarray(image).data)
                on_image(index + 1, len(sha256s))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def decoded(
    store: BlobStore, sha256s: Sequence[str], canvas: Callable[[Pixels], Pixels]
) -> Iterator[Pixels]:
    """The images as canvases in their order, decoded in threads a window ahead.

    Raises:
        ImageCorrupt: The store does not have the bytes of an image, or has others.
        StoreUnavailable: It does not answer.
    """

    def load(sha256: str) -> Pixels:
        data = _bytes_of(store, sha256)
        # The upload verified size and pixels.
        return canvas(decode(data, max_bytes=len(data), max_pixels=2**62).pixels_HWC)

    def load_all(together: Sequence[str]) -> list[Pixels]:
        return [load(sha256) for sha256 in together if not left.is_set()]

    left, threads = Event(), os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        try:
            for start in range(0, len(sha256s), WINDOW):
                window = sha256s[start : start + WINDOW]
                most = min(TOGETHER, -(-len(window) // (2 * threads)))
                tasks = [window[i : i + most] for i in range(0, len(window), most)]
                yield from chain.from_iterable(pool.map(load_all, tasks))
        finally:
            left.set()  # a stopped job does not wait for images that nobody will see


def _bytes_of(store: BlobStore, sha256: str) -> bytes:
    try:
        data = store.get(image_key(sha256))
    except BlobNotFound as error:
        raise _corrupt(sha256, "are not in the blob store any more") from error
    # A damaged file may still be an image, of which nobody would see that it is another one.
    if hashlib.sha256(data).hexdigest() != sha256:
        raise _corrupt(sha256, "in the blob store are damaged, or those of another one")
    return data


def _corrupt(sha256: str, found: str) -> ImageCorrupt:
    key = image_key(sha256)
    return ImageCorrupt(
        f"the bytes of the image with sha256 {sha256} {found}; put {key} back from a backup and "
        "retry the job, or delete the image and order a new one",
        problems=[{"sha256": sha256}],
    )
