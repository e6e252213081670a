"""Dynamic batching that strands nobody: every accepted item gets its result or its error."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from core.errors import BatchFailed, FewlabelsError, Overloaded
from core.telemetry import INFERENCE_BATCH, INFERENCE_BATCHES, INFERENCE_QUEUE, logger

log = logger(__name__)
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
RESTART_SECONDS = 0.1
LONGEST_RESTART_SECONDS = 5.0
RECENT = 0.2  # weight of the last batch in the running mean of an item's time


@dataclass(frozen=True, slots=True)
class Batched(Generic[ResultT]):
    """A result; how long its item waited for the pass, and the pass took, in seconds."""

    result: ResultT
    waited: float
    ran: float


@dataclass(slots=True, eq=False)
class _Entry(Generic[ItemT, ResultT]):
    item: ItemT
    future: Future[Batched[ResultT]]
    put_at: float
    alone: bool = False


class Batcher(Generic[ItemT, ResultT]):
    """One thread that takes what waits, as soon as it is free, and passes it on together.

    There is no timer: a lone item leaves at once, and the next batch gathers while one runs. The
    items of a failing batch are tried alone. A thread that dies is started again after a pause
    that grows while it keeps dying.

    Args:
        forward: Results for items, in their order.
        max_batch: Most items in one call of it.
        turn: Held during a call: models that share a device take turns.
    """

    def __init__(
        self,
        forward: Callable[[list[ItemT]], list[ResultT]],
        *,
        max_batch: int,
        turn: threading.Lock | None = None,
    ) -> None:
        self._forward = forward
        self._max_batch = max_batch
        self._turn = turn or threading.Lock()
        self._waiting: deque[_Entry[ItemT, ResultT]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._pause = RESTART_SECONDS
        self._item_seconds = 0.0
        self._start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs; False from its death to its new start, and once closed."""
        return self._thread.is_alive() and not self._closed

    @property
    def item_seconds(self) -> float:
        """What an item took lately; 0 before the first batch."""
        return self._item_seconds

    def put(self, item: ItemT, future: Future[Batched[ResultT]], *, first: bool = False) -> None:
        """Have the future answered; from any thread. A future cancelled by then is dropped.

        Args:
            item: What to pass on.
            future: Gets the result, BatchFailed, or Overloaded when the batcher is closed.
            first: Whether it goes before all that wait.
        """
        entry = _Entry(item, future, time.perf_counter())
        self._put([entry], self._waiting.extendleft if first else self._waiting.extend)

    def put_all(self, items: Sequence[tuple[ItemT, Future[Batched[ResultT]]]]) -> None:
        """The same for several at a time."""
        now = time.perf_counter()
        self._put([_Entry(item, future, now) for item, future in items], self._waiting.extend)

    def _put(
        self,
        entries: list[_Entry[ItemT, ResultT]],
        add: Callable[[list[_Entry[ItemT, ResultT]]], None],
    ) -> None:
        with self._changed:
            if not self._closed:
                INFERENCE_QUEUE.inc(len(entries))
                add(entries)
                self._changed.notify()
                return
        for entry in entries:
            fail(entry.future, shutting_down())

    def close(self, seconds: float = 10.0) -> None:
        """Fail what waits, let the batch that runs finish, for at most so long."""
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            INFERENCE_QUEUE.dec(len(left))
            self._changed.notify()
        for entry in left:
            fail(entry.future, shutting_down())
        self._thread.join(seconds)

    def _start(self) -> None:
        with self._changed:
            if self._closed:
                return
            self._thread = threading.Thread(target=self._run, name="forward", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            while batch := self._take():
                self._answer(batch)
        except BaseException as error:  # noqa: BLE001 — its callers have been told or wait on
            log.error("the forward thread died and is started again", error=repr(error))
            again = threading.Timer(self._pause, self._start)
            again.daemon = True
            self._pause = min(2 * self._pause, LONGEST_RESTART_SECONDS)
            again.start()

    def _take(self) -> list[_Entry[ItemT, ResultT]]:
        """The next batch; empty when the batcher is closed."""
        with self._changed:
            while not self._closed:
                if batch := self._gathered():
                    return batch
                self._changed.wait()
            return []

    def _gathered(self) -> list[_Entry[ItemT, ResultT]]:
        batch: list[_Entry[ItemT, ResultT]] = []
        taken = 0
        while self._waiting and len(batch) < self._max_batch:
            if batch and (batch[0].alone or self._waiting[0].alone):
                break
            entry = self._waiting.popleft()
            taken += 1
            # A caller that has gone is not worked for.
            if entry.alone or entry.future.set_running_or_notify_cancel():
                batch.append(entry)
        INFERENCE_QUEUE.dec(taken)
        return batch

    def _answer(self, batch: list[_Entry[ItemT, ResultT]]) -> None:
        INFERENCE_BATCHES.inc()
        INFERENCE_BATCH.observe(len(batch))
        try:
            with self._turn:
                started = time.perf_counter()
                results = self._forward([entry.item for entry in batch])
            ran = time.perf_counter() - started
            pairs = list(zip(batch, results, strict=True))
        except BaseException as error:
            self._failed(batch, error)
            if not isinstance(error, Exception):  # the thread is to end
                raise
            return
        self._pause = RESTART_SECONDS
        self._item_seconds += RECENT * (ran / len(batch) - self._item_seconds)
        for entry, result in pairs:
            entry.future.set_result(Batched(result, started - entry.put_at, ran))

    def _failed(self, batch: list[_Entry[ItemT, ResultT]], error: BaseException) -> None:
        if len(batch) > 1:
            log.warning("a batch failed, its items are tried alone", error=repr(error))
            for entry in batch:
                entry.alone = True
            with self._changed:
                if not self._closed:
                    self._waiting.extendleft(reversed(batch))
                    INFERENCE_QUEUE.inc(len(batch))
                    return
        for entry in batch:
            failure = BatchFailed(f"the model failed on this image: {type(error).__name__}")
            failure.__cause__ = error
            fail(entry.future, failure)


def fail(future: Future[ResultT], error: FewlabelsError) -> None:
    """Give a future its error, unless its caller has gone."""
    with suppress(InvalidStateError):
        future.set_exception(error)


def shutting_down() -> Overloaded:
    """What callers get whom nobody will answer any more; one for each."""
    return Overloaded("the server is shutting down; try again")
