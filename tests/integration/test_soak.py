"""A few seconds of `make soak`: every request is answered, and rightly, at twice the capacity."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.soak.__main__ import soak

SECONDS = 5.0


def test_every_request_is_answered_at_twice_the_capacity(tmp_path: Path) -> None:
    work = soak(tmp_path / "data", seconds=SECONDS, seed=1, say=lambda _: None)
    told, faults = asyncio.run(work)
    assert faults == []
    assert told["hung"] == 0
    assert told["200"] > 0
    assert told["left"] > 0
    assert told["429"] + told["504"] > 0
