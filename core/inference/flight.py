"""Images on their way through the steps, and the request that waits for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from core.errors import BatchFailed, FewlabelsError
from core.inference.batcher import Batched, Batcher, fail, shutting_down
from core.inference.model import Answer, LoadedModel
from core.learning.runtimes import Pixels
from core.telemetry import logger

log = logger(__name__)
Decode = Callable[[], Pixels]
# Gives the pixels, or, where they may take long, what does so and is to be called aside.
Load = Callable[[], Pixels | Decode]
PASSED_ON_SECONDS = 0.001
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the slowest image of a request was how long, in seconds."""

    decode: float
    queue: float
    forward: float


@dataclass(slots=True, eq=False)
class Flight:
    """One image on its way to an answer; how long it was decoded, and waited for that."""

    load: Load
    future: Future[Batched[Answer]] = field(default_factory=Future)
    decode_seconds: float = 0.0
    pool_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Decoding:
    """Threads that decode: those of ordinary images, and those of images that may take long.

    Who sends the latter keeps nobody else waiting.
    """

    ordinary: Executor
    aside: Executor


def depart(
    flights: Sequence[Flight],
    pools: Decoding,
    model: LoadedModel,
    batcher: Batcher[Pixels, Answer],
    *,
    groups: int,
) -> None:
    """Have the images decoded by at most so many threads and handed to the batcher.

    Handing over costs as much as decoding a small image, so a thread gets a part of the request
    and not one image; it passes on what it has whenever that took a while. Whatever happens to
    the pool, the futures end.
    """
    preparing = _Preparing(pools, model, batcher, time.perf_counter())
    size = -(-len(flights) // groups)
    for start in range(0, len(flights), size):
        _hand(flights[start : start + size], pools.ordinary, preparing)


@dataclass(frozen=True, slots=True)
class _Preparing:
    """What the images of a request have in common on their way to the batcher."""

    pools: Decoding
    model: LoadedModel
    batcher: Batcher[Pixels, Answer]
    asked: float


def _hand(flights: Sequence[Flight], pool: Executor, preparing: _Preparing) -> None:
    try:
        job = pool.submit(_prepare, flights, preparing)
    except RuntimeError:  # the pool has been shut down
        _left_behind(flights)
    else:
        job.add_done_callback(partial(_when_cancelled, flights))


def _prepare(flights: Sequence[Flight], preparing: _Preparing) -> None:
    batcher = preparing.batcher
    ready: list[tuple[Pixels, Future[Batched[Answer]]]] = []
    since = time.perf_counter()
    for flight in flights:
        canvas = _decoded(flight, preparing)
        if canvas is not None:
            ready.append((canvas, flight.future))
        if ready and time.perf_counter() - since > PASSED_ON_SECONDS:
            batcher.put_all(ready)
            ready, since = [], time.perf_counter()
    if ready:
        batcher.put_all(ready)


def _decoded(flight: Flight, preparing: _Preparing) -> Pixels | None:
    """The canvas.

    None: it is decoded aside, nobody waits for it any more, or he has been told what is wrong.
    """
    if flight.future.cancelled():
        return None
    started = time.perf_counter()
    flight.pool_seconds = started - preparing.asked
    try:
        loaded = flight.load()
        if callable(loaded):
            flight.load = loaded
            _hand([flight], preparing.pools.aside, preparing)
            return None
        canvas = preparing.model.preprocessing.canvas(loaded)
    except FewlabelsError as error:
        fail(flight.future, error)
    except Exception as error:
        log.error("an image could not be prepared", exc_info=error)
        kind = type(error).__name__
        fail(flight.future, BatchFailed(f"this image could not be prepared: {kind}"))
    else:
        flight.decode_seconds = time.perf_counter() - started
        return canvas
    return None


def _when_cancelled(flights: Sequence[Flight], job: Future[None]) -> None:
    if job.cancelled():
        _left_behind(flights)


def _left_behind(flights: Sequence[Flight]) -> None:
    for flight in flights:
        fail(flight.future, shutting_down())


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
