"""Pace, and time spent waiting, over the recent steps; the clock is turned by hand."""

from __future__ import annotations

import pytest

from core.learning.progress import WINDOW_STEPS, Stopwatch


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_time_before_an_interruption_counts_but_not_as_pace() -> None:
    clock = Clock(1000.0)
    stopwatch = Stopwatch(50.0, clock=clock)
    clock.now += 2.0
    stopwatch.step_done(waited=0.5)
    assert stopwatch.elapsed() == 52.0
    assert stopwatch.seconds_a_step == 2.0
    assert stopwatch.data_wait == 0.25


def test_old_steps_are_forgotten() -> None:
    clock, waited = Clock(0.0), 0.0
    stopwatch = Stopwatch(0.0, clock=clock)
    for _ in range(10):
        clock.now += 60.0
        waited += 60.0
        stopwatch.step_done(waited)
    assert (stopwatch.seconds_a_step, stopwatch.data_wait) == (60.0, 1.0)
    for _ in range(WINDOW_STEPS):
        clock.now += 0.5
        waited += 0.1
        stopwatch.step_done(waited)
    assert stopwatch.seconds_a_step == pytest.approx(0.5)
    assert stopwatch.data_wait == pytest.approx(0.2)
    assert stopwatch.elapsed() == 600.0 + WINDOW_STEPS * 0.5
