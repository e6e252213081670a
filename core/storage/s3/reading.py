"""An object as a stream of bytes that outlives a broken line."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from urllib3.exceptions import HTTPError

from core.storage.s3.client import insist, translated


class ObjectStream(io.RawIOBase):
    """An object's bytes from the first to the last; where the line breaks, the rest is asked for.

    Content under one key never changes, so that what comes later fits what came before.
    """

    def __init__(self, store: str, open_at: Callable[[int], Any]) -> None:
        """Take what asks for the bytes from a position on; the first answer is awaited here.

        `store` is its name for messages.
        """
        super().__init__()
        self._store = store
        self._open_at = open_at
        self._position = 0
        self._answer = insist(lambda: open_at(0))

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Up to so many bytes; none at the end.

        Raises:
            StoreUnavailable: The line broke and does not come back.
        """
        with translated(self._store, "get"):
            data: bytes = insist(lambda: self._read(len(buffer)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Let go of the connection."""
        if not self.closed:
            self._drop()
        super().close()

    def _read(self, size: int) -> bytes:
        if self._answer is None:
            self._answer = self._open_at(self._position)
        try:
            data: bytes = self._answer.read(size)
        except HTTPError:
            self._drop()
            raise
        if not data:
            self._answer.release_conn()  # read to its end: others can use the connection
        return data

    def _drop(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()
