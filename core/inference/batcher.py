"""Dynamic batching that strands nobody: every accepted item gets its result or its error."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Generic, TypeVar

from core.errors import BatchFailed, Overloaded
from core.telemetry import INFERENCE_BATCHES, INFERENCE_QUEUE, logger

log = logger(__name__)
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Batcher(Generic[ItemT, ResultT]):
    """Collects items while a batch runs and takes what is there when it is done.

    There is no timer: a lone item leaves at once. A failing batch is tried item by item.
    """

    def __init__(
        self,
        forward: Callable[[list[ItemT]], list[ResultT]],
        *,
        max_batch: int,
        max_waiting: int,
        executor: Executor,
    ) -> None:
        self._forward = forward
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._executor = executor
        self._waiting: deque[tuple[ItemT, asyncio.Future[ResultT]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    def submit(self, items: list[ItemT]) -> list[asyncio.Future[ResultT]]:
        """Futures for the items; all are accepted, or none.

        Raises:
            Overloaded: The queue has no room for them.
        """
        if len(self._waiting) + len(items) > self._max_waiting:
            raise Overloaded(
                f"{len(self._waiting)} images are waiting for this model, at most "
                f"{self._max_waiting} may; try again in a moment"
            )
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[ResultT]] = [loop.create_future() for _ in items]
        self._waiting.extend(zip(items, futures, strict=True))
        INFERENCE_QUEUE.inc(len(items))
        if self._runner is None or self._runner.done():
            self._runner = loop.create_task(self._run())
        return futures

    async def close(self) -> None:
        """Let the batch that runs finish and fail what has not started."""
        self._refuse([self._take() for _ in range(len(self._waiting))])
        if self._runner is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner

    async def _run(self) -> None:
        try:
            await self._work()
        except asyncio.CancelledError:  # the loop ends
            self._refuse([self._take() for _ in range(len(self._waiting))])
            raise

    async def _work(self) -> None:
        while self._waiting:
            batch: list[tuple[ItemT, asyncio.Future[ResultT]]] = []
            while self._waiting and len(batch) < self._max_batch:
                item, future = self._take()
                if not future.done():  # a caller that has gone is not worked for
                    batch.append((item, future))
            if batch:
                await self._answer(batch)

    def _take(self) -> tuple[ItemT, asyncio.Future[ResultT]]:
        INFERENCE_QUEUE.dec()
        return self._waiting.popleft()

    @staticmethod
    def _refuse(entries: list[tuple[ItemT, asyncio.Future[ResultT]]]) -> None:
        for _, future in entries:
            if not future.done():
                future.set_exception(Overloaded("the server is shutting down; try again"))

    async def _answer(self, batch: list[tuple[ItemT, asyncio.Future[ResultT]]]) -> None:
        loop = asyncio.get_running_loop()
        INFERENCE_BATCHES.inc()
        try:
            results = await loop.run_in_executor(
                self._executor, self._forward, [item for item, _ in batch]
            )
            pairs = list(zip(batch, results, strict=True))
        except asyncio.CancelledError:  # the executor or the loop ends
            self._refuse(batch)
            raise
        except Exception as error:  # noqa: BLE001 — delivered to the callers
            if len(batch) > 1:
                log.warning("a batch failed, trying its images alone", error=repr(error))
                for entry in batch:
                    await self._answer([entry])
                return
            future = batch[0][1]
            if not future.done():
                failure = BatchFailed(f"the model failed on this image: {type(error).__name__}")
                failure.__cause__ = error
                future.set_exception(failure)
            return
        for (_, future), result in pairs:
            if not future.done():
                future.set_result(result)
