"""Which rows of the data set make the batch of a step: a function of the step alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from core.learning.data import epoch_order
from core.learning.determinism import generator, mixed_seed


class Batches(Protocol):
    """The batches of a run; any of them can be asked for at any time, so a resumed run can."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in a pass over the images."""
        ...

    def rows(self, step: int) -> Tensor:
        """Rows of the batch of a step (from zero), (batch_size,) int64."""
        ...


class Shuffled:
    """Every image once an epoch, in an order of its own for each epoch.

    The last, incomplete batch of an epoch is dropped; other images fill it next time.

    Raises:
        ValueError: There are fewer images than a batch needs.
    """

    def __init__(self, count: int, *, batch_size: int, seed: int) -> None:
        if count < batch_size:
            raise ValueError(f"batch_size: found {batch_size}, there are only {count} images")
        self.batch_size = batch_size
        self.steps_per_epoch = count // batch_size
        self._order = _cached(lambda epoch: epoch_order(count, seed=seed, epoch=epoch))

    def rows(self, step: int) -> Tensor:
        """Rows of the batch of a step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch_size
        return self._order(epoch)[start : start + self.batch_size]


class WithLabels:
    """Batches in which some places go to labelled images, however few of all images they are.

    The places are spread evenly over the batch, so that each process and each micro-batch gets
    its share. Labelled images take turns in an order that is drawn anew each time round; with few
    labels an image may come up more than once in a batch, under different augmentations.

    Args:
        batches: Their other places stay as they are.
        labelled_rows_L: Rows that have a label; at least one.
        share: Of the batch, in (0, 1]; at least one place.
        seed: Of the turns.

    Raises:
        ValueError: No row has a label, or the share is none.
    """

    def __init__(
        self, batches: Shuffled, labelled_rows_L: Tensor, *, share: float, seed: int
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"label_share: found {share}, a share above 0 and up to 1 is needed")
        if len(labelled_rows_L) == 0:
            raise ValueError("use_labels: no training image has a label")
        self.batches = batches
        self.steps_per_epoch = batches.steps_per_epoch
        self.labelled_rows_L = labelled_rows_L
        places = max(1, round(share * batches.batch_size))
        self.places = torch.arange(places) * batches.batch_size // places
        count = len(labelled_rows_L)
        self._turn = _cached(
            lambda turn: torch.randperm(count, generator=generator(mixed_seed(seed, turn), "cpu"))
        )

    def rows(self, step: int) -> Tensor:
        """Rows of the batch of a step."""
        rows_B = self.batches.rows(step).clone()
        places, count = len(self.places), len(self.labelled_rows_L)
        draws = range(step * places, (step + 1) * places)
        drawn = torch.stack([self._turn(draw // count)[draw % count] for draw in draws])
        rows_B[self.places] = self.labelled_rows_L[drawn]
        return rows_B


def _cached(order: Callable[[int], Tensor]) -> Callable[[int], Tensor]:
    return lru_cache(maxsize=2)(order)
