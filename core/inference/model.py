"""A model in memory: its weights, its preprocessing, and the one call that answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from core.errors import BatchFailed, FewlabelsError
from core.inference.runtimes import Placement, open_run
from core.learning.preprocessing import Preprocessing
from core.learning.runtimes import Pixels
from core.registry.artifact import ModelSource, stored_files


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says of one image.

    Attributes:
        embedding_D: A unit vector.
        probabilities_K: Of the classes, if the model has any.
        order_K: The classes, likeliest first.
        usable: Whether the vector is one: weights may overflow on an image unlike all others.
    """

    embedding_D: NDArray[np.float32]
    probabilities_K: NDArray[np.float32] | None
    order_K: NDArray[np.intp] | None = None
    usable: bool = True


class LoadedModel:
    """A model that answers, with its preprocessing and class names; warmed up when made.

    `byte_count` is what it takes: its weights, or what the process grew by where that is more.

    Raises:
        ArtifactCorrupt: Its weights do not have the checksum of the manifest.
    """

    def __init__(self, source: ModelSource, placement: Placement) -> None:
        manifest = source.manifest
        self.model_id = source.model_id
        self.classes: list[str] = list(manifest.get("classes") or [])
        self.preprocessing = Preprocessing.from_dict(manifest["preprocessing"])
        before = resident_bytes()
        self.runtime, self._run = open_run(source, self.preprocessing, placement)
        [warm_up] = self.forward([self.blank()])
        self.dimension = len(warm_up.embedding_D)
        weights = stored_files(manifest)[placement.file_of(source)].byte_count
        # Of a pass the batches of all models share what they need, so one image is enough.
        self.byte_count = max(weights, resident_bytes() - before)

    def blank(self) -> Pixels:
        """An image for which the model must have an answer."""
        side, channels = self.preprocessing.image_size, self.preprocessing.channels
        return np.zeros((side, side, channels), dtype=np.uint8)

    def forward(self, canvases: list[Pixels]) -> list[Answer]:
        """Answers for canvases (S, S, C) uint8, in their order."""
        embeddings_BD, probabilities_BK = self._run(np.stack(canvases))
        # For all at once, and here: NumPy lets go of the interpreter at each of these calls, for
        # which the event loop would pay with a wait.
        lengths_B = np.linalg.norm(embeddings_BD, axis=1)
        usable = (np.isfinite(lengths_B) & (lengths_B > 0)).tolist()
        if probabilities_BK is None:
            pairs = zip(embeddings_BD, usable, strict=True)
            return [Answer(vector_D, None, None, fine) for vector_D, fine in pairs]
        order_BK = probabilities_BK.argsort(axis=1)[:, ::-1]
        rows = zip(embeddings_BD, probabilities_BK, order_BK, usable, strict=True)
        return [Answer(*row) for row in rows]


def resident_bytes() -> int:
    """The memory that this process holds now, on the host and on its CUDA device."""
    on_device = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    return psutil.Process().memory_info().rss + on_device


def usable(answer: Answer) -> Answer | FewlabelsError:
    """The answer, or an error of ours."""
    if answer.usable:
        return answer
    return BatchFailed("the model gives no usable vector for this image")
