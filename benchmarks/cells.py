"""What was measured, one JSON file a cell, so that a broken run goes on where it stopped."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
import torchvision

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Cell:
    """One method on one draw of the labels; `per_class` 0 is what needs no labels."""

    dataset: str
    per_class: int
    draw: int
    method: str


class Results:
    """The folder of cells; a cell with other settings than today's counts as missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, cell: Cell, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was measured under these settings, or None."""
        path = self._path(cell)
        if not path.exists():
            return None
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record if record["settings"] == plain(settings) else None

    def write(self, cell: Cell, settings: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Record a measurement; a half-written file is never seen."""
        path = self._path(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {**values, "settings": plain(settings), "versions": versions()}
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        unfinished.replace(path)

    def _path(self, cell: Cell) -> Path:
        return self.folder / cell.dataset / f"{cell.per_class}-{cell.draw}-{cell.method}.json"


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: tuples become lists."""
    values: dict[str, Any] = json.loads(json.dumps(settings))
    return values


def versions() -> dict[str, str]:
    """What the figures depend on besides the settings."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "threads": str(torch.get_num_threads()),
    }


def spread(values: Sequence[float]) -> list[float] | None:
    """Mean and standard deviation (of the draws, n - 1), in per cent."""
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return [round(100 * statistics.mean(values), 2), round(100 * deviation, 2)]
