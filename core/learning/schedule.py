"""The learning rate of each step, also while the length of a run is still being measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from core.learning.optimizers import learning_rate_factor


@dataclass(slots=True)
class Schedule:
    """Linear warm-up, then cosine to zero.

    Under a time budget the length comes to be known some steps after the start. Until then the rate
    follows the planned warm-up. A run that turns out shorter than ten warm-ups goes on from the
    rate it has and reaches its peak after another tenth of its steps: never in one jump.

    Attributes:
        warmup: Steps of the warm-up.
        risen_from: Share of the peak from which the rate rises since `rising_since`.
        rising_since: Step from which it does.
    """

    warmup: int
    risen_from: float = 0.0
    rising_since: int = 0

    def length_known(self, step: int, steps: int) -> None:
        """From this step on, the run is known to have so many steps."""
        end = step + steps // 10
        if step < self.warmup and end < self.warmup:
            self.risen_from = step / (self.warmup + 1)
            self.rising_since, self.warmup = step, end

    def factor(self, step: int, steps: int | None) -> float:
        """Share of the peak rate at a step (from zero); `steps` is None while it is not known."""
        if step < self.warmup:
            risen = (step - self.rising_since + 1) / (self.warmup - self.rising_since + 1)
            return self.risen_from + (1 - self.risen_from) * risen
        if steps is None:
            return 1.0
        return learning_rate_factor(step, steps=steps, warmup_steps=self.warmup)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return asdict(self)

    @classmethod
    def of(cls, notes: Mapping[str, Any], *, warmup: int) -> Schedule:
        """As `state` left it, or as planned."""
        return cls(**notes) if notes else cls(warmup)
