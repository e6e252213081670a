"""The batcher strands nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from core.errors import BatchFailed, FewlabelsError, Overloaded
from core.inference.batcher import Batched, Batcher

POISON = -1
DEADLY = -2
LIMIT = 20.0
Numbers = list[int]
Doubling = Batcher[int, int]
Make = Callable[..., Doubling]


class Doubler:
    """Doubles numbers, notes the batches, waits for the gate, fails on poison."""

    def __init__(self) -> None:
        self.batches: list[Numbers] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def __call__(self, items: Numbers) -> Numbers:
        self.begun.set()
        assert self.gate.wait(LIMIT)
        self.batches.append(items)
        if DEADLY in items:
            raise SystemExit("deadly")
        if POISON in items:
            raise ValueError("poison")
        return [2 * item for item in items]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Doubling] = []

    def make(forward: Callable[[Numbers], Numbers], *, max_batch: int = 4) -> Doubling:
        made.append(Batcher(forward, max_batch=max_batch))
        return made[-1]

    yield make
    for batcher in made:
        batcher.close()


def put(batcher: Doubling, *numbers: int, first: bool = False) -> list[Future[Batched[int]]]:
    futures: list[Future[Batched[int]]] = [Future() for _ in numbers]
    for number, future in zip(numbers, futures, strict=True):
        batcher.put(number, future, first=first)
    return futures


def outcome(future: Future[Batched[int]]) -> int | BaseException:
    error = future.exception(LIMIT)
    return future.result().result if error is None else error


def held(batcher: Doubling, doubler: Doubler) -> Future[Batched[int]]:
    """A batch of the number 1 runs, and ends when the gate is opened."""
    doubler.gate.clear()
    [first] = put(batcher, 1)
    assert doubler.begun.wait(LIMIT)
    return first


def test_a_lone_item_leaves_at_once_and_late_ones_travel_together_in_order(make: Make) -> None:
    doubler = Doubler()
    batcher = make(doubler)
    first = held(batcher, doubler)
    later = put(batcher, *range(2, 12))
    doubler.gate.set()
    assert [outcome(future) for future in (first, *later)] == [2 * n for n in range(1, 12)]
    assert doubler.batches == [[1], [2, 3, 4, 5], [6, 7, 8, 9], [10, 11]]
    assert all(future.result().waited >= 0 and future.result().ran > 0 for future in later)
    assert batcher.item_seconds > 0


def test_a_probe_goes_first(make: Make) -> None:
    doubler = Doubler()
    batcher = make(doubler, max_batch=1)
    futures = [held(batcher, doubler), *put(batcher, 2, 3), *put(batcher, 9, first=True)]
    doubler.gate.set()
    assert [outcome(future) for future in futures] == [2, 4, 6, 18]
    assert doubler.batches == [[1], [9], [2], [3]]


def test_poison_reaches_its_caller_only(make: Make) -> None:
    doubler = Doubler()
    batcher = make(doubler)
    held(batcher, doubler)
    futures = put(batcher, 2, POISON, 3, POISON, 5)
    doubler.gate.set()
    outcomes = [outcome(future) for future in futures]
    assert [o for o in outcomes if isinstance(o, int)] == [4, 6, 10]
    failures = [o for o in outcomes if isinstance(o, BaseException)]
    assert len(failures) == 2
    assert all(isinstance(failure, BatchFailed) for failure in failures)
    assert failures[0] is not failures[1]
    assert isinstance(failures[0].__cause__, ValueError)
    assert doubler.batches[1:6] == [[2, POISON, 3, POISON], [2], [POISON], [3], [POISON]]
    assert outcome(*put(batcher, 7)) == 14


def test_a_forward_that_answers_too_few_fails_them(make: Make) -> None:
    doubler = Doubler()
    batcher = make(lambda items: doubler(items)[:1])
    futures = [held(batcher, doubler), *put(batcher, 2, 3)]
    doubler.gate.set()
    assert [outcome(future) for future in futures] == [2, 4, 6]  # each alone
    assert isinstance(outcome(*put(make(lambda items: []), 1)), BatchFailed)


def test_callers_that_left_are_not_worked_for(make: Make) -> None:
    doubler = Doubler()
    batcher = make(doubler, max_batch=2)
    first = held(batcher, doubler)
    left, stayed = put(batcher, 2, 3)
    assert left.cancel()
    assert not first.cancel()  # its batch runs already
    doubler.gate.set()
    assert outcome(stayed) == 6
    assert doubler.batches == [[1], [3]]


def test_a_dead_thread_is_started_again_and_fails_its_killer_only(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[tuple[float, Callable[[], None]]] = []
    dead = threading.Semaphore(0)

    class Noted:
        daemon = False

        def __init__(self, pause: float, start: Callable[[], None]) -> None:
            starts.append((pause, start))

        def start(self) -> None:
            dead.release()

    monkeypatch.setattr(threading, "Timer", Noted)
    doubler = Doubler()
    batcher = make(doubler)
    held(batcher, doubler)
    futures = put(batcher, 2, DEADLY, 3)
    doubler.gate.set()
    for _ in range(2):  # the batch, then the deadly one alone
        assert dead.acquire(timeout=LIMIT)
        batcher._thread.join(LIMIT)
        assert not batcher.alive
        starts[-1][1]()
    outcomes = [outcome(future) for future in futures]
    assert (outcomes[0], outcomes[2]) == (4, 6)
    assert isinstance(outcomes[1], BatchFailed)
    assert outcome(*put(batcher, 7)) == 14
    assert batcher.alive
    for pause in (0.1, 0.2, 0.4):  # it had answered in between; now it does not
        assert isinstance(outcome(*put(batcher, DEADLY)), BatchFailed)
        assert dead.acquire(timeout=LIMIT)
        assert starts[-1][0] == pytest.approx(pause)
        batcher._thread.join(LIMIT)
        starts[-1][1]()


def test_close_answers_who_waits(make: Make) -> None:
    doubler = Doubler()
    batcher = make(doubler, max_batch=1)
    running = held(batcher, doubler)
    [waiting] = put(batcher, 2)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    assert isinstance(outcome(waiting), Overloaded)
    doubler.gate.set()
    closing.join(LIMIT)
    assert outcome(running) == 2
    assert not batcher.alive
    late = outcome(*put(batcher, 3))
    assert isinstance(late, FewlabelsError)
    assert "shutting down" in str(late)


def test_a_batch_that_fails_while_closing_strands_nobody(make: Make) -> None:
    doubler = Doubler()
    batcher = make(doubler)
    held(batcher, doubler)
    futures = put(batcher, 2, POISON)
    second = threading.Event()

    def failing(items: Numbers) -> Numbers:
        second.set()
        threading.Event().wait(0.01)
        return doubler(items)

    batcher._forward = failing
    doubler.gate.set()
    assert second.wait(LIMIT)
    batcher.close()
    assert all(isinstance(outcome(future), (int, FewlabelsError)) for future in futures)


def test_items_that_are_put_together_are_passed_on_together() -> None:
    seen: list[list[int]] = []

    def forward(items: list[int]) -> list[int]:
        seen.append(items)
        return items

    batcher = Batcher(forward, max_batch=4)
    futures: list[Future[Batched[int]]] = [Future() for _ in range(6)]
    batcher.put_all(list(enumerate(futures)))
    assert [future.result(10).result for future in futures] == list(range(6))
    assert seen == [[0, 1, 2, 3], [4, 5]]
    batcher.close()
    late: list[Future[Batched[int]]] = [Future(), Future()]
    batcher.put_all(list(enumerate(late)))
    assert [type(future.exception(10)) for future in late] == [Overloaded, Overloaded]
    assert late[0].exception() is not late[1].exception()
