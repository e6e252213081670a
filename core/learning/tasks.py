"""What the training loop needs to know of a kind of training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class StepResult:
    """The loss to minimise, and scalars to report."""

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Task(Protocol):
    """SimCLR, supervised training and distillation are tasks; one loop trains them all."""

    @property
    def module(self) -> nn.Module:
        """Everything that is trained and checkpointed."""
        ...

    def step(self, images_BHWC: Tensor, rows_B: Tensor, generator: torch.Generator) -> StepResult:
        """Loss of one batch of canvases (uint8) that are these rows of the data set."""
        ...
