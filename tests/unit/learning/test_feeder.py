"""Batches made ahead in a thread are those made in turn."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.learning.batches import Shuffled
from core.learning.feeder import Feeder
from core.learning.tasks import StepResult

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), dtype=np.uint8)


class NoisyTask:
    """Adds noise to the images, and notes who called."""

    def __init__(self) -> None:
        self.module: nn.Module = nn.Identity()
        self.threads: set[str] = set()
        self.fail_at: Tensor | None = None

    def prepare(self, images_BHWC: Tensor, rows_B: Tensor, generator: torch.Generator) -> Tensor:
        self.threads.add(threading.current_thread().name)
        assert not torch.is_grad_enabled()
        if self.fail_at is not None and torch.equal(rows_B, self.fail_at):
            raise ValueError("this batch is broken")
        return images_BHWC + torch.randn(images_BHWC.shape, generator=generator)

    def step(self, inputs: Tensor, rows_B: Tensor) -> StepResult:
        raise AssertionError("the feeder takes no step")


def feeder(task: NoisyTask, *, ahead: bool, seed: int = 0, rank: int = 0) -> Feeder[Tensor]:
    batches = Shuffled(len(IMAGES), batch_size=6, seed=0)
    return Feeder(
        task, IMAGES, rows_of=batches.rows, seed=seed, rank=rank, device="cpu", ahead=ahead
    )


def batches_of(made: Feeder[Tensor], steps: range) -> list[Tensor]:
    with made:
        return [made.take(step).inputs for step in steps]


def test_ahead_or_not_the_batches_are_the_same() -> None:
    tasks = NoisyTask(), NoisyTask()
    in_turn = batches_of(feeder(tasks[0], ahead=False), range(12))
    ahead = batches_of(feeder(tasks[1], ahead=True), range(12))
    assert all(torch.equal(a, b) for a, b in zip(in_turn, ahead, strict=True))
    assert tasks[0].threads == {"MainThread"}
    assert all(name.startswith("feeder") for name in tasks[1].threads)
    assert not any(thread.name.startswith("feeder") for thread in threading.enumerate())


def test_a_batch_follows_from_seed_step_and_rank() -> None:
    from_five = batches_of(feeder(NoisyTask(), ahead=True), range(5, 8))
    from_start = batches_of(feeder(NoisyTask(), ahead=False), range(8))
    assert all(torch.equal(a, b) for a, b in zip(from_five, from_start[5:], strict=True))
    for other in (
        feeder(NoisyTask(), ahead=False, seed=1),
        feeder(NoisyTask(), ahead=False, rank=1),
    ):
        assert not torch.equal(batches_of(other, range(1))[0], from_start[0])


@pytest.mark.parametrize("ahead", [False, True])
def test_what_fails_while_preparing_is_raised_at_its_step(ahead: bool) -> None:
    task = NoisyTask()
    task.fail_at = Shuffled(len(IMAGES), batch_size=6, seed=0).rows(2)
    with feeder(task, ahead=ahead) as made:
        made.take(0)
        made.take(1)
        with pytest.raises(ValueError, match="this batch is broken"):
            made.take(2)
