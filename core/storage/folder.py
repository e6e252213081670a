"""Blobs in a local folder, two hex digits deep."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from core.errors import BlobNotFound, StoreUnavailable
from core.storage.files import flush_filesystem, replacing
from core.storage.keys import KEY, check_key, check_namespace

COPY_BYTES = 2**20
STALE_SECONDS = 24 * 3600  # an unfinished file this old belongs to a process that died


class FolderStore:
    """A BlobStore in a folder that only its owner can enter."""

    def __init__(self, root: Path) -> None:
        """Name the folder; `prepare` makes it."""
        self._root = root
        self._scratch = root / ".incoming"
        self._made: set[Path] = set()  # folders of shards

    def prepare(self) -> None:
        """Make the folder if it is not there and drop unfinished files of processes that died."""
        with self._translated("prepare"):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._scratch.mkdir(mode=0o700, exist_ok=True)
            oldest = time.time() - STALE_SECONDS
            for entry in self._scratch.iterdir():
                if entry.stat().st_mtime < oldest:
                    entry.unlink(missing_ok=True)

    def check(self) -> None:
        """Write and remove a small file: a full or read-only disk shows itself here."""
        with self._translated("check"):
            probe = self._scratch / f"check-{os.getpid()}-{time.monotonic_ns()}"
            probe.write_bytes(b"ok")
            probe.unlink()

    def put(self, key: str, data: bytes) -> None:
        """Store the bytes."""
        path = self._path(key)
        with self._translated("put"):
            if not _has_size(path, len(data)):
                with self._writing(path) as file:
                    file.write(data)

    def put_all(self, blobs: Mapping[str, bytes]) -> None:
        """Store many: written, flushed together, then moved into their places."""
        fresh = {self._path(key): data for key, data in blobs.items()}
        upload = uuid4().hex
        written: list[tuple[Path, Path]] = []
        with self._translated("put"):
            try:
                for path, data in fresh.items():
                    if _has_size(path, len(data)):
                        continue
                    part = self._scratch / f".part-{upload}-{len(written)}"
                    written.append((part, path))
                    _write(part, data)
                if written:
                    flush_filesystem(self._scratch)
                for part, path in written:
                    self._move(part, path)
            except BaseException:
                for part, _ in written:
                    part.unlink(missing_ok=True)
                raise

    def put_file(self, key: str, path: Path) -> None:
        """Store a file's bytes."""
        target = self._path(key)
        with self._translated("put"), path.open("rb") as source:
            if not _has_size(target, os.fstat(source.fileno()).st_size):
                with self._writing(target) as file:
                    shutil.copyfileobj(source, file, COPY_BYTES)

    def get(self, key: str) -> bytes:
        """The bytes."""
        with self._opened(key) as file, self._translated("get"):
            return file.read()

    def fetch(self, key: str, path: Path) -> None:
        """Copy the bytes to a file."""
        with self._opened(key) as source, self._translated("fetch"), replacing(path) as file:
            shutil.copyfileobj(source, file, COPY_BYTES)

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """The bytes as a stream."""
        with self._opened(key) as file:
            yield file

    def exists(self, key: str) -> bool:
        """Whether there are bytes under the key."""
        path = self._path(key)
        with self._translated("exists"):
            self._root.stat()  # a folder that is gone is not an empty one
            return path.is_file()

    def delete(self, key: str) -> None:
        """Remove the file."""
        path = self._path(key)
        with self._translated("delete"):
            self._root.stat()
            path.unlink(missing_ok=True)

    def keys(self, namespace: str) -> Iterator[str]:
        """All keys of one namespace, in order."""
        folder = self._root / check_namespace(namespace)
        return self._keys(folder)

    def _keys(self, folder: Path) -> Iterator[str]:
        for shard in self._entries(folder):
            for name in self._entries(folder / shard):
                if KEY.fullmatch(key := f"{folder.name}/{name}"):
                    yield key

    def _entries(self, folder: Path) -> list[str]:
        with self._translated("keys"):
            self._root.stat()
            return sorted(os.listdir(folder)) if folder.is_dir() else []

    def _path(self, key: str) -> Path:
        namespace, digest = check_key(key).split("/")
        return self._root / namespace / digest[:2] / digest

    def _make_folders(self, path: Path) -> None:
        # One level at a time, not parents=True: when the root is gone (an unmounted disk)
        # writing fails instead of filling the disk underneath.
        for folder in (path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        self._made.add(path.parent)

    def _move(self, part: Path, path: Path) -> None:
        # Most of the time of storing a small file is names; a shard's folder is made once.
        if path.parent in self._made:
            try:
                os.replace(part, path)
                return
            except FileNotFoundError:  # another disk lies there now
                self._made.discard(path.parent)
        self._make_folders(path)
        os.replace(part, path)

    @contextmanager
    def _writing(self, path: Path) -> Iterator[BinaryIO]:
        self._make_folders(path)
        with replacing(path, scratch=self._scratch) as file:
            yield file

    @contextmanager
    def _opened(self, key: str) -> Iterator[BinaryIO]:
        path = self._path(key)
        with self._translated("get"):
            self._root.stat()
            try:
                file = path.open("rb")
            except FileNotFoundError:
                raise BlobNotFound(f"no blob {key}") from None
        with file:
            yield file

    @contextmanager
    def _translated(self, operation: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(
                f"blob folder {self._root}: {operation} failed: {error.strerror or error}"
            ) from error


def _has_size(path: Path, size: int) -> bool:
    # Content-addressed: a complete blob is never written twice, one of another size is mended.
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _write(path: Path, data: bytes) -> None:
    # Without a buffer, and without a question to the file system whether it is a terminal.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
    finally:
        os.close(handle)
