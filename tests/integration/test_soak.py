"""A few seconds of `make soak`: every request is answered, and rightly, at twice the capacity."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.soak.__main__ import soak

SECONDS = 5.0


@pytest.mark.parametrize("processes", [1, 2])
def test_every_request_is_answered_at_twice_the_capacity(tmp_path: Path, processes: int) -> None:
    work = soak(tmp_path / "data", seconds=SECONDS, seed=1, say=lambda _: None, processes=processes)
    told, faults = asyncio.run(work)
    assert faults == []
    assert told["hung"] == 0
    assert told["200"] > 0
    assert told["requests"] == sum(told[name] for name in ("200", "422", "429", "504", "left"))
