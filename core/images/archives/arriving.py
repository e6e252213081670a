"""Streams that cannot seek: looking at the first bytes, and a file where there has to be one."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

BUFFER = 128 * 1024


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes | None:
        """Up to so many bytes; none at the end."""
        ...


class _Whole(io.RawIOBase):
    """A stream again from its beginning, of which the first bytes were read already."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        super().__init__()
        self._head = head
        self._rest = rest
        self._position = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        data = self._head[: len(buffer)] or self._rest.read(len(buffer)) or b""
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def with_head(stream: Readable, size: int) -> tuple[bytes, BinaryIO]:
    """The first bytes, and the whole stream, whose `read` gives fewer than asked for at the end."""
    head = b""
    while len(head) < size and (piece := stream.read(size - len(head))):
        head += piece
    return head, io.BufferedReader(_Whole(head, stream), BUFFER)


@contextmanager
def on_disk(stream: BinaryIO, folder: Path) -> Iterator[BinaryIO]:
    """The stream's bytes in a temporary file that can seek, at its beginning."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="upload-") as file:
        shutil.copyfileobj(stream, file, BUFFER)
        file.seek(0)
        yield cast(BinaryIO, file)
