"""Where an alias has pointed, and how late an answer follows it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

FOLLOWED_SECONDS = 1.0  # after which every process knows of a move


@dataclass(slots=True)
class _Move:
    model: str
    asked_at: float
    answered_at: float = math.inf


class Moves:
    """The moves of one alias, each of which is asked for and answered."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._moves: list[_Move] = []
        self.latest = 0.0  # seconds, of all answers that were looked at

    @contextmanager
    def move(self, model: str) -> Iterator[None]:
        """The block asks for the alias to point to the model."""
        made = _Move(model, self._clock())
        self._moves.append(made)
        yield
        made.answered_at = self._clock()

    def late(self, model: str, *, sent_at: float) -> float:
        """How long before its request was sent the alias had moved away from an answer's model.

        Nothing where the alias may have pointed there at any moment since the request was sent:
        from when a move there was asked for until the next one was answered.

        Args:
            model: Of the answer that has just come.
            sent_at: When its request was sent, by the same clock.
        """
        left = [
            after.answered_at
            for before, after in zip(self._moves, self._moves[1:], strict=False)
            if before.model == model
        ]
        if self._moves and self._moves[-1].model == model:
            left.append(math.inf)
        late = max(0.0, sent_at - max(left, default=-math.inf))
        self.latest = max(self.latest, late)
        return late
