"""The choice among runtimes: the fastest of those that agree."""

from __future__ import annotations

import time

import numpy as np
import pytest

from core.learning.preprocessing import Preprocessing
from core.learning.runtimes import Floats, Pixels, Probe, Run, choose
from core.learning.runtimes.cuda import buckets

IMAGES = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4, 1)


def sleeper(seconds: float, *, off: float = 0.0, off_together: float = 0.0) -> Run:
    def run(canvases: Pixels) -> tuple[Floats, Floats | None]:
        time.sleep(seconds)
        vectors = canvases.reshape(len(canvases), -1) / 255 + off
        vectors += off_together if len(canvases) > 1 else 0.0
        return vectors.astype(np.float32), None

    return run


def broken() -> Run:
    raise OSError("no such library")


def test_the_fastest_that_agrees_is_chosen_and_the_others_say_why_not() -> None:
    choice = choose(
        {
            "eager": lambda: sleeper(0.02),
            "good": lambda: sleeper(0.01),
            "wrong": lambda: sleeper(0, off=0.01),
            "wrong together": lambda: sleeper(0, off_together=0.01),
            "nan": lambda: sleeper(0, off=float("nan")),
            "broken": broken,
        },
        IMAGES,
        batch=4,
        threads=1,
    )
    assert choice.chosen == "good"
    refused = {name: candidate.refused for name, candidate in choice.candidates.items()}
    assert refused["good"] is None
    assert refused["eager"] is None
    assert "0.01" in (refused["wrong"] or "")
    assert "0.01" in (refused["wrong together"] or "")
    assert "inf" in (refused["nan"] or "")
    assert refused["broken"] == "OSError: no such library"


def test_what_gains_nothing_does_not_replace_pytorch() -> None:
    runtimes = {"eager": lambda: sleeper(0.005), "slower": lambda: sleeper(0.01)}
    assert choose(runtimes, IMAGES, batch=2, threads=1).chosen == "eager"


def test_a_probe_goes_through_a_manifest() -> None:
    preprocessing = Preprocessing(image_size=4, channels=1, mean=(0.5,), std=(0.5,))
    probe = Probe.of(sleeper(0), preprocessing)
    again = Probe.from_dict({"embedding": probe.embedding, "probabilities": None})
    assert again.distance(probe) == 0
    assert Probe.of(sleeper(0, off=0.25), preprocessing).distance(probe) == pytest.approx(0.25)


def test_batches_for_graphs() -> None:
    assert buckets(1) == [1]
    assert buckets(32) == [1, 2, 4, 8, 16, 32]
    assert buckets(24) == [1, 2, 4, 8, 16, 24]
