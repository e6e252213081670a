"""A few answers that a model must give wherever it is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from core.learning.preprocessing import Preprocessing
from core.learning.runtimes.run import Floats, Pixels, Run, difference

IMAGES = 2
COMPONENTS = 32


def probe_canvases(preprocessing: Preprocessing) -> Pixels:
    """Two canvases that are the same everywhere, busy from pixel to pixel."""
    side, channels = preprocessing.image_size, preprocessing.channels
    count = IMAGES * side * side * channels
    # Knuth's multiplicative hash, so that no generator's version plays a part.
    mixed = (np.arange(count, dtype=np.uint64) * np.uint64(2654435761)) >> np.uint64(13)
    return (mixed & np.uint64(255)).astype(np.uint8).reshape(IMAGES, side, side, channels)


@dataclass(frozen=True, slots=True)
class Probe:
    """The first components of what PyTorch answers for `probe_canvases`."""

    embedding: list[list[float]]
    probabilities: list[list[float]] | None

    @classmethod
    def of(cls, run: Run, preprocessing: Preprocessing) -> Self:
        """What this runtime answers."""
        embedding_BD, probabilities_BK = run(probe_canvases(preprocessing))
        return cls(
            embedding_BD[:, :COMPONENTS].tolist(),
            None if probabilities_BK is None else probabilities_BK[:, :COMPONENTS].tolist(),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """As it stands in a manifest."""
        return cls(values["embedding"], values["probabilities"])

    def distance(self, other: Probe) -> float:
        """The largest difference in any component."""
        return difference(self._arrays(), other._arrays())

    def _arrays(self) -> tuple[Floats, Floats | None]:
        probabilities = self.probabilities
        return (
            np.asarray(self.embedding, dtype=np.float32),
            None if probabilities is None else np.asarray(probabilities, dtype=np.float32),
        )
