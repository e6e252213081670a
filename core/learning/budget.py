"""From minutes to steps: training that ends when its time is over."""

from __future__ import annotations

import math
from collections.abc import Callable

SKIPPED_STEPS = 2  # the first ones allocate memory and choose kernels
MEASURED_STEPS = 10
MEASURED_SECONDS = 3.0
CHECKS = 10
TOLERANCE = 0.05


class Budget:
    """Turns a time budget into a number of steps by measuring the first ones.

    At least ten steps and three seconds are measured, after two that do not count, but no longer
    than a tenth of the budget. After each further tenth the number of steps is corrected if the
    run would miss the budget by more than 5 %: a machine that becomes slower or faster meanwhile
    changes how much is trained, not how long. Whatever happens, the first step that ends after
    the budget is the last; if the machine became slower in the last tenth, the learning rate has
    not quite come down to zero by then.

    Args:
        seconds: How long training may take, probes and checkpoints included.
        elapsed: Seconds of training so far, those before an interruption included.
        steps: What an earlier process found; None = still to be measured.

    Raises:
        ValueError: There is no time in the budget.
    """

    def __init__(
        self, seconds: float, *, elapsed: Callable[[], float], steps: int | None = None
    ) -> None:
        if not seconds > 0:
            raise ValueError(f"budget_minutes: found {seconds / 60:g}, more than 0 is needed")
        self.seconds = seconds
        self.steps = steps
        self._elapsed = elapsed
        self._seen = 0
        self._mark: tuple[int, float] | None = None

    def after(self, step: int) -> int | None:
        """Steps in all, once this many are done; None while that is being measured."""
        now = self._elapsed()
        self._seen += 1
        if now >= self.seconds:
            self.steps = step
        elif self._mark is None:
            if self._seen >= SKIPPED_STEPS or now >= self.seconds / CHECKS:
                self._mark = (step, now)
        elif self._is_time(step - self._mark[0], now - self._mark[1], now):
            self._plan(step, now, pace=(now - self._mark[1]) / (step - self._mark[0]))
        return self.steps

    def _is_time(self, steps: int, seconds: float, now: float) -> bool:
        if self.steps is not None:
            return seconds >= self.seconds / CHECKS
        measured = steps >= MEASURED_STEPS and seconds >= MEASURED_SECONDS
        return measured or now >= self.seconds / CHECKS

    def _plan(self, step: int, now: float, *, pace: float) -> None:
        """The steps that fit at this many seconds a step; the next pace is measured from here."""
        left = self.seconds - now
        if self.steps is None or abs(left - (self.steps - step) * pace) > TOLERANCE * self.seconds:
            self.steps = step + max(0, math.floor(left / max(pace, 1e-9)))
        self._mark = (step, now)
