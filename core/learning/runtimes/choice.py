"""Which runtime a model is served by: the fastest of those that give the same answers."""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.learning.runtimes.run import Floats, Pixels, Run, difference

EAGER = "eager"
# Between answers to real images, in any component of a unit vector and any probability.
TOLERANCE = 1e-3
# What another runtime must save: below that it is the noise of a busy machine.
LEAST_GAIN = 0.05
ROUNDS = 5
SECONDS = 2.0  # of measuring for each candidate


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """How a runtime did, or why it could not.

    Attributes:
        one_ms: A pass of one image.
        batch_ms: A pass of a full batch.
        difference: From PyTorch's answers, the largest in any component or probability, the
            images together and each alone.
        refused: Why it cannot be chosen.
    """

    one_ms: float | None = None
    batch_ms: float | None = None
    difference: float | None = None
    refused: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What was chosen, and the figures of all candidates."""

    chosen: str
    candidates: dict[str, Candidate]
    batch: int
    images: int
    threads: int
    cpu: str
    tolerance: float = TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


def choose(
    runtimes: Mapping[str, Callable[[], Run]],
    images_NHWC: Pixels,
    *,
    batch: int,
    threads: int,
) -> Choice:
    """Time the runtimes in turns and take the fastest whose answers are PyTorch's.

    Both a lone image and a full batch count: the geometric mean of the two ratios to PyTorch.

    Args:
        runtimes: How each is made; `eager` is among them.
        images_NHWC: Canvases of real images, at least one.
        batch: Images of a full pass; fewer images are repeated.
        threads: That the runtimes were made for.
    """
    runs: dict[str, Run] = {}
    refused: dict[str, str] = {}
    for name, make in runtimes.items():
        try:
            run = make()
            run(images_NHWC[:1])
            runs[name] = run
        except Exception as error:  # noqa: BLE001 — recorded: a runtime that fails is not chosen
            refused[name] = f"{type(error).__name__}: {error}"[:300]
    inputs = one_and_full(images_NHWC, batch)
    differences = {name: _from_eager(runs[EAGER], run, images_NHWC) for name, run in runs.items()}
    times = in_turns(runs, inputs)
    candidates = {
        name: Candidate(
            one_ms=round(times[name]["one"], 3),
            batch_ms=round(times[name]["batch"], 3),
            difference=differences[name],
            refused=None
            if differences[name] <= TOLERANCE
            else f"its answers differ by {differences[name]:.2g}, more than {TOLERANCE:g}",
        )
        for name in runs
    }
    candidates |= {name: Candidate(refused=reason) for name, reason in refused.items()}
    return Choice(
        chosen=_best(candidates),
        candidates=candidates,
        batch=batch,
        images=len(images_NHWC),
        threads=threads,
        cpu=cpu_name(),
    )


def one_and_full(images_NHWC: Pixels, batch: int) -> dict[str, Pixels]:
    """What runtimes are timed with: a lone image, and a full batch of repeated ones."""
    full_BHWC = images_NHWC[[row % len(images_NHWC) for row in range(batch)]]
    return {"one": images_NHWC[:1], "batch": full_BHWC}


def _from_eager(eager: Run, run: Run, images_NHWC: Pixels) -> float:
    """Against PyTorch on the whole batch; each image alone in the runtime, too (TEI #882)."""
    expected = eager(images_NHWC)
    together = difference(expected, run(images_NHWC))
    alone = max(
        difference(_row(expected, row), run(images_NHWC[row : row + 1]))
        for row in range(len(images_NHWC))
    )
    return max(together, alone)


def _row(answers: tuple[Floats, Floats | None], row: int) -> tuple[Floats, Floats | None]:
    embedding_BD, probabilities_BK = answers
    alone = slice(row, row + 1)
    return embedding_BD[alone], None if probabilities_BK is None else probabilities_BK[alone]


def in_turns(runs: Mapping[str, Run], inputs: Mapping[str, Pixels]) -> dict[str, dict[str, float]]:
    """Median milliseconds of each runtime for each input; a busy moment strikes all alike."""
    taken: dict[str, dict[str, list[float]]] = {name: {key: [] for key in inputs} for name in runs}
    for name, run in runs.items():  # kernels of a new shape are made at its first pass
        for pixels in inputs.values():
            run(pixels)
        taken[name] = {key: [] for key in inputs}
    began = time.perf_counter()
    for _ in range(ROUNDS):
        for name, run in runs.items():
            for key, pixels in inputs.items():
                for _ in range(4 if key == "one" else 1):
                    started = time.perf_counter()
                    run(pixels)
                    taken[name][key].append(1000 * (time.perf_counter() - started))
        if time.perf_counter() - began > SECONDS * len(runs):
            break
    return {
        name: {key: statistics.median(values) for key, values in by_input.items()}
        for name, by_input in taken.items()
    }


def _best(candidates: Mapping[str, Candidate]) -> str:
    eager = candidates[EAGER]
    best, best_ratio = EAGER, 1 - LEAST_GAIN
    for name, candidate in candidates.items():
        if candidate.refused is not None or name == EAGER:
            continue
        ratio = _ratio(candidate.one_ms, eager.one_ms) * _ratio(candidate.batch_ms, eager.batch_ms)
        ratio = math.sqrt(ratio)
        if ratio < best_ratio:
            best, best_ratio = name, ratio
    return best


def _ratio(taken: float | None, by_eager: float | None) -> float:
    """Of two times that were measured."""
    assert taken is not None
    assert by_eager is not None
    return taken / max(by_eager, 1e-3)


def cpu_name() -> str:
    """The processor as the kernel names it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
