"""Images are decoded in processes of their own, with limits on time and memory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import SimpleQueue

import numpy as np

from core.config import Settings, bare_environment
from core.errors import DecodersUnavailable, ImageInvalid, ImageTooCostly
from core.images.decoding import ImageInfo, Pixels
from core.images.frames import READY, Answer, Drawing, Message, Shape, Verdict, answer_of, packed
from core.telemetry import logger

log = logger(__name__)
MESSAGE_FILES = 32
MESSAGE_BYTES = 4 * 2**20
RECEIVE_BYTES = 65_536
MOST_RECEIVED = 2**20  # a verdict has some hundred bytes
START_SECONDS = 60.0
END_SECONDS = 2.0
# The limit is on processor time. Where a machine is busy that takes longer, but not for ever.
PATIENCE, PATIENCE_SECONDS = 4.0, 10.0
# An answer, the pixels in the place of their announcement.
Said = ImageInfo | ImageInvalid | Drawing | Pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeLimits:
    """Of one file: bytes and pixels; of decoding it: processor time, and the process's memory."""

    max_bytes: int
    max_pixels: int
    seconds: float
    memory_mb: int


class DecodePool:
    """Processes that say what files are, decode and draw them; any number of threads may ask.

    They start when they are first needed. One that a file has ended is replaced.
    """

    def __init__(self, limits: DecodeLimits, *, processes: int) -> None:
        """Nothing is started yet."""
        self._limits = limits
        self._processes = processes
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="decode")
        # One place for each process; threads that draw wait their turn among them.
        self._places: SimpleQueue[_Worker | None] = SimpleQueue()
        for _ in range(processes):
            self._places.put(None)

    @classmethod
    def from_settings(cls, settings: Settings, *, processes: int | None = None) -> DecodePool:
        """The pool that the settings ask for; `processes` takes the place of their number."""
        limits = DecodeLimits(
            max_bytes=settings.max_image_bytes,
            max_pixels=settings.max_image_pixels,
            seconds=settings.decode_seconds,
            memory_mb=settings.decode_memory_mb,
        )
        wanted = settings.decode_processes
        by_setting = (os.cpu_count() or 1) if wanted == "auto" else wanted
        return cls(limits, processes=processes or by_setting)

    @property
    def limits(self) -> DecodeLimits:
        """Of each file."""
        return self._limits

    def inspect(self, files: Sequence[bytes]) -> list[Verdict]:
        """For each file what it is, or why it cannot be used; in order.

        Raises:
            DecodersUnavailable: A process does not start.
        """
        parts = _parts(files, most=-(-len(files) // self._processes))
        messages = map(Message, parts)
        answers = [one for said in self._threads.map(self._ask, messages) for one in said]
        return [answer for answer in answers if isinstance(answer, ImageInfo | ImageInvalid)]

    def pixels(self, data: bytes) -> Pixels:
        """The image as `decode` gives it: RGB, uint8, height x width x 3.

        Raises:
            ImageInvalid: It cannot be decoded within the limits.
            DecodersUnavailable: A process does not start.
        """
        (answer,) = self._ask(Message([data], pixels=True))
        if isinstance(answer, ImageInvalid):
            raise answer
        assert isinstance(answer, np.ndarray), "nothing else is taken from a process that decodes"
        return answer

    def draw(self, data: bytes, *, side: int) -> bytes:
        """The image within a square of so many pixels, as WebP.

        Raises:
            ImageInvalid: It cannot be decoded within the limits.
            DecodersUnavailable: A process does not start.
        """
        (answer,) = self._ask(Message([data], side))
        if isinstance(answer, ImageInvalid):
            raise answer
        assert isinstance(answer, Drawing), "nothing else is taken from a process that draws"
        return answer.data

    def close(self) -> None:
        """End the processes, once nobody asks any more."""
        self._threads.shutdown()
        while not self._places.empty():
            if worker := self._places.get():
                worker.close()

    def _ask(self, message: Message) -> list[Said]:
        worker = self._places.get()
        files = message.files
        answers: list[Said] = []
        most = len(files)
        try:
            while len(answers) < len(files):
                if worker and not worker.alive:
                    worker.close()
                    worker = None
                worker = worker or _Worker(self._limits)
                asked = files[len(answers) : len(answers) + most]
                said = worker.ask(replace(message, files=asked))
                answers += said
                if len(said) < len(asked):
                    most = 1  # which of them ended the process shows when each is alone
        finally:
            self._places.put(worker)
        return answers


def _parts(files: Sequence[bytes], *, most: int) -> Iterator[Sequence[bytes]]:
    """Messages of up to so many files: all processes get some, and none gets much at once."""
    start, size = 0, 0
    for index, data in enumerate(files):
        full = index - start >= min(most, MESSAGE_FILES) or size + len(data) > MESSAGE_BYTES
        if full and index > start:
            yield files[start:index]
            start, size = index, 0
        size += len(data)
    if start < len(files):
        yield files[start:]


class _Worker:
    """One process and the socket to it; used by one thread at a time."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._patience = PATIENCE * limits.seconds + PATIENCE_SECONDS
        self._received = b""
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._process = self._start(theirs)
        self._channel.settimeout(START_SECONDS)
        try:
            started = self._line() + b"\n" == READY
        except OSError:
            started = False
        if not started:
            self._end()
            raise DecodersUnavailable(
                "the process that decodes uploads does not start "
                f"(it ended with {self._process.returncode}); its own words are in the server's log"
            )
        self._channel.settimeout(self._patience)

    def _start(self, channel: socket.socket) -> subprocess.Popen[bytes]:
        limits = self._limits
        figures = (limits.max_bytes, limits.max_pixels, limits.seconds, limits.memory_mb)
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "core.images.inspector", *map(str, figures)],
                stdin=channel.fileno(),
                stdout=subprocess.DEVNULL,
                # Each thread of a matrix library would reserve memory that the limit counts.
                env={**bare_environment(), "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
            )
        except OSError as error:
            self._channel.close()
            raise DecodersUnavailable(
                f"the process that decodes uploads cannot be started: {error}"
            ) from error

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, message: Message) -> list[Said]:
        """Answers in order; fewer where a file ended the process, unless it was the only one."""
        answers: list[Said] = []
        try:
            self._channel.sendall(packed(message))
            while len(answers) < len(message.files):
                answers.append(self._answer(message))
        except TimeoutError:
            self._end()
            cause = f"did not end in {self._patience:g} s"
        except (OSError, ValueError, RecursionError) as error:
            self._end()
            log.warning("a file ended the process that decoded it", error=repr(error))
            cause = self._cause()
        else:
            return answers
        if len(message.files) == 1:
            answers.append(ImageTooCostly(f"decoding the image {cause}"))
        return answers

    def _answer(self, asked: Message) -> Said:
        answer: Answer = answer_of(self._line())
        if isinstance(answer, ImageInvalid):
            return answer
        wanted = Shape if asked.pixels else Drawing if asked.side else ImageInfo
        if not isinstance(answer, wanted):
            raise ValueError("the decoding process answers what it was not asked")
        return self._pixels(answer) if isinstance(answer, Shape) else answer

    def _pixels(self, shape: Shape) -> Pixels:
        if shape.height * shape.width > self._limits.max_pixels:
            raise ValueError("the decoding process announces more pixels than an image may have")
        pixels_HWC = np.empty((shape.height, shape.width, 3), np.uint8)
        room = pixels_HWC.data.cast("B")
        have = self._received[: len(room)]
        self._received = self._received[len(room) :]
        room[: len(have)] = have
        room = room[len(have) :]
        while room:
            count = self._channel.recv_into(room)
            if count == 0:
                raise ConnectionResetError("the decoding process has ended")
            room = room[count:]
        return pixels_HWC

    def close(self) -> None:
        """End the process, which has nothing to do."""
        self._channel.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._end()

    def _line(self) -> bytes:
        while b"\n" not in self._received:
            piece = self._channel.recv(RECEIVE_BYTES)
            if not piece:
                raise ConnectionResetError("the decoding process has ended")
            self._received += piece
            if len(self._received) > MOST_RECEIVED:
                raise ValueError("the decoding process says more than it was asked")
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _end(self) -> None:
        self._channel.close()
        # One that is about to end by itself says better why than by our signal.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS / 10)
        self._process.kill()
        self._process.wait()

    def _cause(self) -> str:
        code = self._process.returncode
        if code == -signal.SIGPROF:
            return f"took more than the {self._limits.seconds:g} s of processor time allowed"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"ended the process that did it ({how})"
