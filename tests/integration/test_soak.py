"""A few seconds of `make soak`: every request is answered, and rightly, at twice the capacity."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.soak.__main__ import soak
from tests.soak.moves import Moves

SECONDS = 4.0


@pytest.mark.parametrize("processes", [1, 2])
def test_every_request_is_answered_at_twice_the_capacity(tmp_path: Path, processes: int) -> None:
    work = soak(
        tmp_path / "data",
        seconds=SECONDS,
        seed=1,
        say=lambda _: None,
        processes=processes,
        measured_seconds=1.5,
    )
    told, faults = asyncio.run(work)
    assert faults == []
    assert told["hung"] == 0
    assert told["200"] > 0
    assert told["requests"] == sum(told[name] for name in ("200", "422", "429", "504", "left"))


def test_an_answer_is_late_by_the_time_since_the_alias_had_moved() -> None:
    now = 0.0
    moves = Moves(clock=lambda: now)
    for model, asked_at, answered_at in (("a", 1, 2), ("b", 5, 6), ("a", 9, 10)):
        now = asked_at
        with moves.move(model):
            now = answered_at
    assert moves.late("a", sent_at=5.5) == 0
    assert moves.late("a", sent_at=7.0) == 0, "it points there again by now"
    assert moves.late("b", sent_at=9.5) == 0, "the move away was not answered yet"
    assert moves.late("b", sent_at=10.75) == 0.75
    assert moves.late("c", sent_at=3.0) > 10**6, "never"
