"""A process that looks at files, or decodes or draws them: `python -m core.images.inspector`.

Its standard input is a socket to `core.images.pool`. It has no settings, no database and no
store, writes no files, and ends when the other side does.
"""

from __future__ import annotations

import argparse
import gc
import resource
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from core.errors import ImageInvalid, ImageTooCostly
from core.images.decoding import decode
from core.images.drawing import draw
from core.images.frames import READY, Answer, Drawing, Message, Shape, line_of, read_message

OPEN_FILES = 32
# Verdicts on small files are said together: to wake the other side for each costs more than it.
ANSWER_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class _Limits:
    max_bytes: int
    max_pixels: int
    seconds: float
    memory_mb: int


def main() -> None:
    """Answer every file with a line until there are no more messages."""
    limits = _limits()
    # Ctrl-C in a terminal is the API's affair.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = socket.socket(fileno=0)
    stream = channel.makefile("rb")
    _first_to_go()
    _confine(limits.memory_mb)
    channel.sendall(READY)
    while (message := read_message(stream)) is not None:
        said, since = bytearray(), time.monotonic()
        for data in message.files:
            if time.monotonic() - since > ANSWER_SECONDS:
                channel.sendall(said)
                said, since = bytearray(), time.monotonic()
            # Processor time, so that a busy machine refuses nothing. The signal ends the process
            # in the midst of a decoder, too, where no handler of Python's would run.
            signal.setitimer(signal.ITIMER_PROF, limits.seconds)
            answer, pixels = _answer(data, message, limits)
            signal.setitimer(signal.ITIMER_PROF, 0)
            said += line_of(answer)
            if pixels is not None:
                channel.sendall(said)
                channel.sendall(pixels)
                said.clear()
                del pixels  # the next file must not find them in memory
        channel.sendall(said)


def _limits() -> _Limits:
    parser = argparse.ArgumentParser()
    parser.add_argument("max_bytes", type=int)
    parser.add_argument("max_pixels", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("memory_mb", type=int)
    given = parser.parse_args()
    return _Limits(given.max_bytes, given.max_pixels, given.seconds, given.memory_mb)


def _first_to_go() -> None:
    # Where the system is out of memory it ends this process, not the one that it works for.
    with suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text("1000")


def _confine(memory_mb: int) -> None:
    bytes_ = memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (bytes_, bytes_))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    gc.freeze()


def _answer(data: bytes, asked: Message, limits: _Limits) -> tuple[Answer, memoryview[int] | None]:
    """What is said of a file, and its pixels where they are asked for."""
    allowed = {"max_bytes": limits.max_bytes, "max_pixels": limits.max_pixels}
    try:
        if asked.side:
            return Drawing(draw(data, side=asked.side, **allowed)), None
        decoded = decode(data, **allowed)
        if asked.pixels:
            height, width, _ = decoded.pixels_HWC.shape
            return Shape(height, width), decoded.pixels_HWC.data.cast("B")
        return decoded.info, None
    except ImageInvalid as error:
        return error, None
    except MemoryError:  # while the header was read, or the picture drawn
        return ImageTooCostly("decoding the image needs more memory than it may"), None


if __name__ == "__main__":
    main()
