"""Images on their way through the steps, and the request that waits for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from core.errors import BatchFailed, FewlabelsError
from core.inference.batcher import Batched, Batcher, fail, shutting_down
from core.inference.model import Answer, LoadedModel
from core.learning.runtimes import Pixels
from core.telemetry import logger

log = logger(__name__)
Load = Callable[[], Pixels]
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the slowest image of a request was how long, in seconds."""

    decode: float
    queue: float
    forward: float


@dataclass(slots=True, eq=False)
class Flight:
    """One image: decoded on a pool's thread, then handed to the batcher."""

    load: Load
    model: LoadedModel
    batcher: Batcher[Pixels, Answer]
    future: Future[Batched[Answer]] = field(default_factory=Future)
    decode_seconds: float = 0.0
    pool_seconds: float = 0.0

    def start(self, pool: Executor) -> None:
        """Set off; whatever happens to the pool, the future ends."""
        asked = time.perf_counter()
        try:
            job = pool.submit(self._prepare, asked)
        except RuntimeError:  # the pool has been shut down
            fail(self.future, shutting_down())
        else:
            job.add_done_callback(self._left_behind)

    def _prepare(self, asked: float) -> None:
        if self.future.cancelled():
            return
        started = time.perf_counter()
        self.pool_seconds = started - asked
        try:
            canvas = self.model.preprocessing.canvas(self.load())
        except FewlabelsError as error:
            fail(self.future, error)
        except Exception as error:
            log.error("an image could not be prepared", exc_info=error)
            kind = type(error).__name__
            fail(self.future, BatchFailed(f"this image could not be prepared: {kind}"))
        else:
            self.decode_seconds = time.perf_counter() - started
            self.batcher.put(canvas, self.future)

    def _left_behind(self, job: Future[None]) -> None:
        if job.cancelled():
            fail(self.future, shutting_down())


async def together(futures: Sequence[Future[ResultT]]) -> None:
    """Wait until all have ended; a waiter that is cancelled cancels what has not begun.

    The loop is woken once for all of them.
    """
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    left = len(futures)
    counting = threading.Lock()

    def wake() -> None:
        if not ended.done():
            ended.set_result(None)

    def one_less(_: Future[ResultT]) -> None:
        nonlocal left
        with counting:
            left -= 1
            last = left == 0
        if last:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(wake)

    for future in futures:
        future.add_done_callback(one_less)
    try:
        await ended
    except asyncio.CancelledError:
        for future in futures:
            future.cancel()
        raise


def timing(flights: Sequence[Flight]) -> Timing:
    """Of flights that have ended; steps that an image did not reach count nothing."""
    passes = [flight.future.result() for flight in flights if flight.future.exception() is None]
    return Timing(
        decode=max(flight.decode_seconds for flight in flights),
        queue=max(flight.pool_seconds for flight in flights)
        + max((batched.waited for batched in passes), default=0.0),
        forward=max((batched.ran for batched in passes), default=0.0),
    )
