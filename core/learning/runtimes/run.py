"""What every runtime is in the end: one call from canvases to answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
# Canvases (B, S, S, C) uint8 to unit vectors (B, D) and, of a classifier, probabilities (B, K).
Run = Callable[[Pixels], tuple[Floats, Floats | None]]


def difference(one: tuple[Floats, Floats | None], other: tuple[Floats, Floats | None]) -> float:
    """The largest difference between two answers in any component or probability; inf for NaN."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    largest = max(float(np.abs(a - b).max(initial=0.0)) for a, b in pairs)
    return largest if np.isfinite(largest) else float("inf")
