"""Log lines of a busy server, written together: a write for each would stop its event loop."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

GATHERED_SECONDS = 0.05


class GatheredLines(logging.StreamHandler[TextIO]):
    """Writes twenty times a second; a warning at once, with all that was said before it.

    Every write lets go of the interpreter, and on a busy server another thread takes it: the
    event loop waited longer for its log line than a small model takes to answer. A process that
    is killed loses the lines of its last moment, never a warning.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: deque[str] = deque()
        self._something = threading.Event()
        self._closed = False
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the rendered line, and write if it is urgent."""
        try:
            self._lines.append(self.format(record) + self.terminator)
        except Exception:  # noqa: BLE001 — as every handler does: logging never stops the work
            self.handleError(record)
            return
        if record.levelno >= logging.WARNING or self._closed:
            self.flush()
        elif not self._something.is_set():
            self._something.set()

    def flush(self) -> None:
        """Write all lines now."""
        with self.lock or threading.Lock():
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if lines:
                self.stream.write("".join(lines))
                self.stream.flush()

    def close(self) -> None:
        """Write what is left, and from now on each line at once."""
        self._closed = True
        self._something.set()
        self._writer.join()
        self.flush()
        super().close()

    def _write(self) -> None:
        pause = threading.Event()
        while not self._closed:
            self._something.wait()
            pause.wait(GATHERED_SECONDS)
            self._something.clear()
            self.flush()


@contextmanager
def gathered() -> Iterator[None]:
    """Within the block the root logger's handler of standard error writes its lines together."""
    root = logging.getLogger()
    plain = root.handlers[0]
    assert isinstance(plain, logging.StreamHandler)
    handler = GatheredLines(plain.stream)
    handler.setFormatter(plain.formatter)
    root.handlers[0] = handler
    try:
        yield
    finally:
        root.handlers[0] = plain
        handler.close()
