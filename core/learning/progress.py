"""How far training is, and how fast."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

WINDOW_STEPS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where training is after a step; `step` and `epoch` count from one.

    Attributes:
        step: Steps done.
        steps: Steps in all; under a time budget an estimate that is corrected as training goes on.
        epoch: The epoch of this step.
        epochs: Epochs in all, the last one perhaps incomplete.
        loss: Of this step.
        images_per_second: Over the recent steps, of all processes together.
        seconds_left: At the recent pace.
        data_wait: Share of the recent time in which the loop waited for its batches, in [0, 1].
        phase: What is going on, for people.
        message: What somebody who looks should know, in sentences.
        probed: Whether the metrics hold values that are measured only every now and then.
        metrics: Further scalars by name.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    images_per_second: float
    seconds_left: float
    data_wait: float = 0.0
    phase: str = "training"
    message: str | None = None
    probed: bool = False
    metrics: dict[str, float] = field(default_factory=dict)


class Stopwatch:
    """Training time, that before an interruption included, and the pace of the recent steps.

    Args:
        before: Seconds that earlier processes trained.
        clock: Seconds from anywhere.
    """

    def __init__(self, before: float, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._origin = clock() - before
        self._recent: deque[tuple[float, float]] = deque([(before, 0.0)], WINDOW_STEPS + 1)

    def elapsed(self) -> float:
        """Seconds of training so far."""
        return self._clock() - self._origin

    def step_done(self, waited: float) -> None:
        """Note a step; `waited` is what the loop waited for batches since the start."""
        self._recent.append((self.elapsed(), waited))

    @property
    def seconds_a_step(self) -> float:
        """Mean over the recent steps."""
        return max(self._recent[-1][0] - self._recent[0][0], 1e-9) / (len(self._recent) - 1)

    @property
    def data_wait(self) -> float:
        """Share of the recent time that the loop waited for batches."""
        (first, waited), (last, waited_last) = self._recent[0], self._recent[-1]
        return min(1.0, (waited_last - waited) / max(last - first, 1e-9))
