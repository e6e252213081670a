"""The batcher strands nobody."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.errors import BatchFailed, Overloaded
from core.inference.batcher import Batcher

POISON = -1
Numbers = list[int]


class Doubler:
    """Doubles numbers, notes the batches, waits for the gate, fails on poison."""

    def __init__(self) -> None:
        self.batches: list[Numbers] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: Numbers) -> Numbers:
        self.gate.wait(10)
        self.batches.append(items)
        if POISON in items:
            raise ValueError("poison")
        return [2 * item for item in items]


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def make(executor: ThreadPoolExecutor) -> Callable[..., Batcher[int, int]]:
    def made(
        forward: Callable[[Numbers], Numbers], *, max_batch: int = 4, max_waiting: int = 16
    ) -> Batcher[int, int]:
        return Batcher(forward, max_batch=max_batch, max_waiting=max_waiting, executor=executor)

    return made


Make = Callable[..., Batcher[int, int]]


def test_answers_in_order_in_batches(make: Make) -> None:
    doubler = Doubler()

    async def run() -> list[int]:
        return list(await asyncio.gather(*make(doubler).submit(list(range(10)))))

    assert asyncio.run(run()) == [2 * number for number in range(10)]
    assert [len(batch) for batch in doubler.batches] == [4, 4, 2]


def test_lone_item_leaves_at_once_and_late_ones_travel_together(make: Make) -> None:
    doubler = Doubler()

    async def run() -> None:
        batcher = make(doubler)
        doubler.gate.clear()
        (first,) = batcher.submit([1])
        await asyncio.sleep(0.02)
        later = [batcher.submit([n])[0] for n in (2, 3, 4)]
        doubler.gate.set()
        assert await first == 2
        assert await asyncio.gather(*later) == [4, 6, 8]

    asyncio.run(run())
    assert doubler.batches == [[1], [2, 3, 4]]


def test_poison_reaches_its_caller_only(make: Make) -> None:
    async def run() -> None:
        batcher = make(Doubler())
        outcomes = await asyncio.gather(
            *batcher.submit([1, POISON, 3, POISON, 5]), return_exceptions=True
        )
        assert [o for o in outcomes if isinstance(o, int)] == [2, 6, 10]
        failures = [o for o in outcomes if isinstance(o, BaseException)]
        assert len(failures) == 2
        assert all(isinstance(failure, BatchFailed) for failure in failures)
        assert failures[0] is not failures[1]
        assert isinstance(failures[0].__cause__, ValueError)
        assert await batcher.submit([7])[0] == 14

    asyncio.run(run())


def test_a_forward_that_answers_too_few_fails_them(make: Make) -> None:
    async def run() -> None:
        batcher = make(lambda items: [1])
        outcomes = await asyncio.gather(*batcher.submit([1, 2]), return_exceptions=True)
        assert outcomes == [1, 1]  # each alone
        batcher = make(lambda items: [])
        with pytest.raises(BatchFailed):
            await batcher.submit([1])[0]

    asyncio.run(run())


def test_full_queue_takes_all_or_none(make: Make) -> None:
    doubler = Doubler()

    async def run() -> None:
        batcher = make(doubler, max_batch=1, max_waiting=3)
        doubler.gate.clear()
        running = batcher.submit([1])
        await asyncio.sleep(0.02)
        waiting = batcher.submit([2, 3])
        with pytest.raises(Overloaded, match=r"2 images are waiting.*at most 3"):
            batcher.submit([4, 5])
        waiting += batcher.submit([6])
        doubler.gate.set()
        assert await asyncio.gather(*running, *waiting) == [2, 4, 6, 12]

    asyncio.run(run())
    assert sorted(number for batch in doubler.batches for number in batch) == [1, 2, 3, 6]


def test_callers_that_left_are_not_worked_for(make: Make) -> None:
    doubler = Doubler()

    async def run() -> None:
        batcher = make(doubler, max_batch=2)
        doubler.gate.clear()
        (first,) = batcher.submit([1])
        await asyncio.sleep(0.02)
        left, stayed = batcher.submit([2, 3])
        left.cancel()
        first.cancel()  # its batch runs already
        doubler.gate.set()
        assert await stayed == 6

    asyncio.run(run())
    assert doubler.batches == [[1], [3]]


def test_close_answers_who_waits(make: Make) -> None:
    doubler = Doubler()

    async def run() -> None:
        batcher = make(doubler, max_batch=1)
        doubler.gate.clear()
        running, waiting = batcher.submit([1, 2])
        await asyncio.sleep(0.02)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0.02)
        doubler.gate.set()
        await closing
        assert await running == 2
        with pytest.raises(Overloaded, match="shutting down"):
            await waiting

    asyncio.run(run())


def test_ended_executor_fails_callers(make: Make, executor: ThreadPoolExecutor) -> None:
    async def run() -> None:
        batcher = make(Doubler())
        executor.shutdown()
        outcomes = await asyncio.gather(*batcher.submit([1, 2]), return_exceptions=True)
        assert all(isinstance(outcome, BatchFailed) for outcome in outcomes)

    asyncio.run(run())
    gc.collect()


def test_cancelled_forward_strands_nobody(make: Make) -> None:
    def cancelled(items: Numbers) -> Numbers:
        raise asyncio.CancelledError

    async def run() -> None:
        batcher = make(cancelled, max_batch=1)
        futures = batcher.submit([1, 2])
        async with asyncio.timeout(2):
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert all(isinstance(outcome, Overloaded) for outcome in outcomes)

    asyncio.run(run())
