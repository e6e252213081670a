"""Minutes become steps; the clock is turned by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from core.learning.budget import Budget


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def train(
    budget: Budget, clock: Clock, pace: Callable[[int], float], *, first: int = 0
) -> list[int | None]:
    """What the budget said after each step of a training at this pace (seconds of step n)."""
    said: list[int | None] = []
    step = first
    while not said or said[-1] is None or step < said[-1]:
        clock.now += pace(step)
        step += 1
        said.append(budget.after(step))
    return said


@pytest.mark.parametrize("seconds", [60.0, 600.0, 36_000.0])
@pytest.mark.parametrize("pace", [0.02, 0.4, 1.7])
def test_a_steady_machine_uses_its_time(seconds: float, pace: float) -> None:
    clock = Clock()
    said = train(Budget(seconds, elapsed=clock), clock, lambda _: pace)
    assert clock.now == pytest.approx(seconds, rel=0.05, abs=pace)
    assert len(set(said)) <= 2 + 1, "the length is found once and hardly ever corrected"


def test_slow_first_steps_do_not_count() -> None:
    clock = Clock()
    said = train(Budget(300.0, elapsed=clock), clock, lambda step: 8.0 if step < 2 else 0.5)
    # 16 s are gone after two steps; 10 more take 5 s; the rest fits 0.5 s each.
    assert said[:11] == [None] * 11
    assert said[11] == 12 + (300 - 21) / 0.5
    assert clock.now == pytest.approx(300.0, rel=0.01)


def test_ten_steps_and_three_seconds_are_measured() -> None:
    clock = Clock()
    said = train(Budget(100.0, elapsed=clock), clock, lambda _: 0.125)
    assert said.index(said[-1]) + 1 == 2 + 3 / 0.125
    clock = Clock()
    said = train(Budget(1000.0, elapsed=clock), clock, lambda _: 2.0)
    assert said.index(said[-1]) + 1 == 2 + 10


def test_no_more_than_a_tenth_is_measured() -> None:
    clock = Clock()
    said = train(Budget(100.0, elapsed=clock), clock, lambda _: 4.0)
    assert said.index(said[-1]) + 1 == 3  # 12 s: the first step after a tenth
    assert clock.now == pytest.approx(100.0, abs=4.0)


def test_a_machine_that_becomes_slower_trains_less_not_longer() -> None:
    clock = Clock()
    said = train(Budget(600.0, elapsed=clock), clock, lambda step: 0.5 if step < 600 else 2.0)
    assert clock.now == pytest.approx(600.0, abs=2.0)
    assert len(said) == pytest.approx(600 + 300 / 2, abs=2)


def test_a_machine_that_becomes_faster_trains_more() -> None:
    clock = Clock()
    said = train(Budget(600.0, elapsed=clock), clock, lambda step: 1.0 if step < 300 else 0.25)
    assert clock.now == pytest.approx(600.0, rel=0.05)
    assert len(said) == pytest.approx(300 + 300 / 0.25, rel=0.05)


def test_a_standstill_in_the_end_costs_one_step() -> None:
    clock = Clock()
    train(Budget(100.0, elapsed=clock), clock, lambda step: 0.5 if step < 190 else 50.0)
    assert clock.now == 95.0 + 50.0


@pytest.mark.parametrize("pace", [30.0, 500.0])
def test_steps_longer_than_the_budget(pace: float) -> None:
    clock = Clock()
    said = train(Budget(100.0, elapsed=clock), clock, lambda _: pace)
    assert clock.now < 100.0 + pace
    assert said[-1] == len(said) >= 1


def test_an_interrupted_run_keeps_its_length() -> None:
    clock = Clock()
    clock.now = 30.0
    said = train(Budget(100.0, elapsed=clock, steps=100), clock, lambda _: 1.0, first=30)
    assert set(said) == {100}
    assert clock.now == 100.0


def test_without_time_there_is_no_training() -> None:
    with pytest.raises(ValueError, match="budget_minutes: found 0, more than 0"):
        Budget(0.0, elapsed=Clock())
