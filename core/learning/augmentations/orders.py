"""What the kernel is asked for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


class Orders(NamedTuple):
    """What to make of which image, N times.

    Attributes:
        sources_N: Image of each view.
        crops_N4: See `Moves.crops`.
        turns_N: Quarter turns.
        maps_N23: `Moves.maps()` where views are rotated or sheared, else none; they contain the
            crops and the turns.
        matrix_NCC: See `Colours`; none where colours stay.
        lift_N: See `Colours`.
        weights_NR: Of the blur, by distance; a view with none but the first stays sharp.
        solarized_N: Whether a view is.
    """

    sources_N: Indices
    crops_N4: Floats
    turns_N: Indices
    maps_N23: Floats
    matrix_NCC: Floats
    lift_N: Floats
    weights_NR: Floats
    solarized_N: Flags

    def part(self, rows: slice) -> tuple[NDArray[Any], ...]:
        """Some of them, as the plain tuple that the kernel takes."""
        return tuple(array[rows] for array in self)
