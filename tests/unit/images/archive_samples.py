"""Archives for tests: made in memory, read from a file."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.images.archives import ArchiveLimits, Member, members

MIB = 2**20
LIMITS = ArchiveLimits(
    max_entries=1000, max_bytes=64 * MIB, max_ratio=200.0, max_file_bytes=8 * MIB
)
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda data: data,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
Entries = dict[str, bytes]


def zip_of(entries: Entries, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tar_of(entries: Entries, style: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=style) as archive:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def read(folder: Path, data: bytes, limits: ArchiveLimits = LIMITS) -> list[Member]:
    return list(start(folder, data, limits))


class Arriving(io.RawIOBase):
    """Bytes as a network brings them: in pieces of any size, and never again."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.rest = memoryview(data)
        self.sizes = random.Random(0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        piece = self.rest[: min(len(buffer), self.sizes.choice((1, 37, 1_460, 65_536)))]
        buffer[: len(piece)] = piece
        self.rest = self.rest[len(piece) :]
        return len(piece)


def start(folder: Path, data: bytes, limits: ArchiveLimits = LIMITS) -> Iterator[Member]:
    return members(Arriving(data), limits=limits, scratch=folder)


def until_error(reading: Iterator[Member], error: type[Exception], said: str) -> list[Member]:
    """The members that come before the error, which must come."""
    found: list[Member] = []
    with pytest.raises(error, match=said):
        _collect(reading, found)
    return found


def _collect(reading: Iterator[Member], found: list[Member]) -> None:
    for member in reading:
        found.append(member)


def contents(found: list[Member]) -> dict[str, bytes | str]:
    return {
        member.name: member.rejected.code if member.rejected else member.data or b""
        for member in found
    }


PHOTOS: Entries = {"a.jpg": b"first", "sub/b.png": bytes(range(256)) * 5, "empty.webp": b""}
