"""A process that looks at files, or draws them small: `python -m core.images.inspector`.

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
from dataclasses import dataclass

from core.errors import ImageInvalid, ImageTooCostly
from core.images.decoding import decode
from core.images.drawing import draw
from core.images.frames import READY, Answer, Drawing, line_of, read_message

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
            answer = _answer(data, message.side, limits)
            signal.setitimer(signal.ITIMER_PROF, 0)
            said += line_of(answer)
        channel.sendall(said)


def _limits() -> _Limits:
    parser = argparse.ArgumentParser()
    parser.add_argument("max_bytes", type=int)
    parser.add_argument("max_pixels", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("memory_mb", type=int)
    given = parser.parse_args()
    return _Limits(given.max_bytes, given.max_pixels, given.seconds, given.memory_mb)


def _confine(memory_mb: int) -> None:
    bytes_ = memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (bytes_, bytes_))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    gc.freeze()


def _answer(data: bytes, side: int, limits: _Limits) -> Answer:
    allowed = {"max_bytes": limits.max_bytes, "max_pixels": limits.max_pixels}
    try:
        if side:
            return Drawing(draw(data, side=side, **allowed))
        return decode(data, **allowed).info
    except ImageInvalid as error:
        return error
    except MemoryError:  # while the header was read, or the picture drawn
        return ImageTooCostly("decoding the image needs more memory than it may")


if __name__ == "__main__":
    main()
