"""The labelled images of a snapshot, as the stages use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from core.datasets.snapshot import SnapshotItem, Split
from core.learning.preprocessing import Preprocessing
from core.stages.context import Pixels, StageContext

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Canvases with class indices, by split; `classes` are the names behind the indices.

    Where the items of a split stand together, as `labelled_items` has them, its canvases are a view
    of the memory map: only what is used is read.
    """

    items: Sequence[SnapshotItem]
    images_NHWC: Pixels
    targets_N: NDArray[np.int64]
    classes: Sequence[str]

    def split(self, name: str) -> tuple[Pixels, NDArray[np.int64]]:
        """Canvases and targets of one split."""
        rows = [row for row, item in enumerate(self.items) if item.split == name]
        if rows and rows[-1] - rows[0] + 1 == len(rows):
            together = slice(rows[0], rows[-1] + 1)
            return self.images_NHWC[together], self.targets_N[together]
        return self.images_NHWC[rows], self.targets_N[rows]

    def count(self, name: str) -> int:
        """Images of one split; none of them is read."""
        return sum(item.split == name for item in self.items)


def labelled_images(
    context: StageContext, preprocessing: Preprocessing, classes: Sequence[str]
) -> LabelledImages:
    """The labelled images of the snapshot whose class the model knows."""
    items = labelled_items(context, classes)
    return with_targets(items, context.canvases(items, preprocessing), classes)


def labelled_items(context: StageContext, classes: Sequence[str]) -> list[SnapshotItem]:
    """The items of the snapshot with one of these labels, split by split, the test split last."""
    known = set(classes)
    items = [item for item in context.items() if item.label in known]
    return sorted(items, key=lambda item: SPLITS.index(item.split))


def with_targets(
    items: Sequence[SnapshotItem], images_NHWC: Pixels, classes: Sequence[str]
) -> LabelledImages:
    """Canvases and the class indices of their labels."""
    index = {name: number for number, name in enumerate(classes)}
    targets_N = np.array([index[cast(str, item.label)] for item in items], dtype=np.int64)
    return LabelledImages(items, images_NHWC, targets_N, classes)
