"""What the training loop needs to know of a kind of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

Inputs = TypeVar("Inputs")


@dataclass(frozen=True, slots=True)
class StepResult:
    """The loss to minimise, and scalars to report.

    Attributes:
        loss: Scalar.
        metrics: Scalars by name.
        backward: Fills the gradients in place of `loss.backward()`, for a task that does not keep
            the graph of its whole batch.
    """

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
    backward: Callable[[], None] | None = None


class Task(Protocol[Inputs]):
    """SimCLR, supervised training and distillation are tasks; one loop trains them all."""

    @property
    def module(self) -> nn.Module:
        """Everything that is trained and checkpointed."""
        ...

    def prepare(self, images_BHWC: Tensor, rows_B: Tensor, generator: torch.Generator) -> Inputs:
        """What a step needs of canvases (uint8) that are these rows of the data set.

        Runs without gradients, perhaps in another thread while the step before it runs: all that
        is random comes from the generator, and the module is not touched.
        """
        ...

    def step(self, inputs: Inputs, rows_B: Tensor) -> StepResult:
        """Loss of one prepared batch; torch's global generator is seeded for this very step."""
        ...


class Monitor(Protocol):
    """Looks at a run every now and then; the loop asks it after each step."""

    @property
    def message(self) -> str | None:
        """What somebody who looks should know, in sentences."""
        ...

    @property
    def finished(self) -> bool:
        """Whether more training is of no use."""
        ...

    def due(self, step: int, steps: int | None) -> bool:
        """Whether to look after this step (from one); the same in all processes."""
        ...

    def note(self, loss: float) -> None:
        """Take the loss of a step into account; called for every one."""
        ...

    def look(self, step: int) -> dict[str, float]:
        """Measure, in evaluation mode and without random numbers; values by name."""
        ...

    def state(self) -> dict[str, Any]:
        """All that later results depend on, as plain JSON types."""
        ...

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        ...
