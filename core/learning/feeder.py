"""The inputs of each step, made one step ahead in a thread where that pays."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.learning.data import read_rows
from core.learning.determinism import generator, mixed_seed
from core.learning.tasks import Inputs, Task


@dataclass(frozen=True, slots=True)
class Fed(Generic[Inputs]):
    """Rows of the data set on the device, and what the task made of their canvases."""

    rows_B: Tensor
    inputs: Inputs


class Feeder(Generic[Inputs]):
    """Reads and prepares the batches of a run, in order.

    Args:
        task: Prepares them.
        images_NHWC: uint8 canvases.
        rows_of: Rows of this process in the batch of a step (from zero).
        seed: Of (seed, step, rank) comes the generator of a step.
        rank: Of this process.
        device: Where batches go.
        ahead: Make the next batch in a thread while the loop is busy with this one. It pays with
            a GPU, which leaves the CPU idle. On a CPU the two only take cores from each other:
            on two of them, steps at 32 and at 96 px took as long either way.

    Attributes:
        waited: Seconds that the loop has waited for batches.
    """

    def __init__(
        self,
        task: Task[Inputs],
        images_NHWC: NDArray[np.uint8],
        *,
        rows_of: Callable[[int], Tensor],
        seed: int,
        rank: int,
        device: str,
        ahead: bool,
    ) -> None:
        self.task = task
        self.images_NHWC = images_NHWC
        self.rows_of = rows_of
        self.seed = seed
        self.rank = rank
        self.device = device
        self.waited = 0.0
        self._thread = ThreadPoolExecutor(1, "feeder", self._start_thread) if ahead else None
        self._next: tuple[int, Future[Fed[Inputs]]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def take(self, step: int) -> Fed[Inputs]:
        """The batch of a step (from zero)."""
        started = time.monotonic()
        if self._thread is None:
            fed = self._make(step)
        else:
            if self._next is None or self._next[0] != step:
                self._next = step, self._thread.submit(self._make, step)
            fed = self._next[1].result()
            self._next = step + 1, self._thread.submit(self._make, step + 1)
        self.waited += time.monotonic() - started
        return fed

    def _start_thread(self) -> None:
        if ":" in self.device:  # each thread has a current device of its own, the first one
            torch.cuda.set_device(self.device)

    @torch.no_grad()
    def _make(self, step: int) -> Fed[Inputs]:
        rows_B = self.rows_of(step)
        images_BHWC = read_rows(self.images_NHWC, rows_B, self.device)
        rows_B = rows_B.to(self.device)
        random = generator(mixed_seed(self.seed, step, self.rank), self.device)
        return Fed(rows_B, self.task.prepare(images_BHWC, rows_B, random))
