"""Arrays that several processes of one machine map from the same file."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def hand_over(array: NDArray[Any], path: Path) -> dict[str, Any]:
    """Where other processes can map the array from; it is written there if it is in no file."""
    # What was cut out of a mapped array is based on that array, not on the file.
    if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap):
        path, offset = Path(str(array.filename)), array.offset
    else:
        np.save(path, array)
        offset = np.load(path, mmap_mode="r").offset
    return {
        "path": str(path.absolute()),
        "dtype": array.dtype.str,
        "shape": array.shape,
        "offset": offset,
    }


def take_over(place: Mapping[str, Any]) -> NDArray[Any]:
    """What another process handed over, mapped read-only."""
    return np.memmap(
        place["path"], place["dtype"], "r", offset=place["offset"], shape=tuple(place["shape"])
    )
