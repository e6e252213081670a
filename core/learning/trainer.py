"""One training loop for every task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.learning.checkpoint import Checkpoint, capture, restore
from core.learning.data import epoch_order, read_rows
from core.learning.determinism import generator as seeded_generator
from core.learning.optimizers import (
    OptimizerConfig,
    build_optimizer,
    learning_rate_factor,
    set_learning_rate,
)
from core.learning.tasks import StepResult, Task


class Stopped(Exception):
    """Training was asked to stop; the checkpoint, if there is one, holds what was done."""


class Diverged(Exception):
    """The loss is no longer a number; the message says what to change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where training is after a step; `step` and `epoch` count from one."""

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    images_per_second: float
    seconds_left: float
    metrics: dict[str, float] = field(default_factory=dict)


class StageConfig(Protocol):
    """The part that the configurations of all stages share."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def optimizer(self) -> str: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def warmup_epochs(self) -> float: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerConfig:
    """Length, batches, optimizer and seed of a run."""

    epochs: int
    batch_size: int
    optimizer: OptimizerConfig
    warmup_epochs: float
    seed: int

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(
                f"epochs and batch_size: found {self.epochs} and {self.batch_size}, "
                "at least 1 and 2 are needed"
            )

    @classmethod
    def of(cls, config: StageConfig) -> Self:
        """The loop's part of a stage's configuration."""
        optimizer = OptimizerConfig(
            name=config.optimizer,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        return cls(
            epochs=config.epochs,
            batch_size=config.batch_size,
            optimizer=optimizer,
            warmup_epochs=config.warmup_epochs,
            seed=config.seed,
        )


class Trainer:
    """Trains a task; reports after each step and can be stopped and resumed between steps.

    Args:
        config: See `TrainerConfig`.
        device: Where to train.
        on_step: Called after each step.
        should_stop: Asked after each step.
        checkpoint: Where to keep the state of the run, and to look for it at the start.
    """

    def __init__(
        self,
        config: TrainerConfig,
        *,
        device: str = "cpu",
        on_step: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.config = config
        self.device = device
        self.on_step = on_step
        self.should_stop = should_stop
        self.checkpoint = checkpoint

    def fit(self, task: Task, images_NHWC: NDArray[np.uint8]) -> None:
        """Train the task's module in place, on the device, and leave it in eval mode.

        The last, incomplete batch of an epoch is dropped; other images fill it next time.

        Raises:
            ValueError: There are fewer images than a batch needs.
            Stopped: `should_stop` said so.
            Diverged: The loss became infinite or not a number.
        """
        config = self.config
        steps_per_epoch = len(images_NHWC) // config.batch_size
        if steps_per_epoch == 0:
            raise ValueError(
                f"batch_size: found {config.batch_size}, there are only {len(images_NHWC)} images"
            )
        steps = steps_per_epoch * config.epochs
        warmup_steps = round(config.warmup_epochs * steps_per_epoch)
        task.module.to(self.device).train()
        optimizer = build_optimizer(task.module, config.optimizer)
        generator = seeded_generator(config.seed, self.device)
        first = self._resume(task, optimizer, generator)
        clock = _Clock(first, steps, config.batch_size)
        order = torch.empty(0)
        for step in range(first, steps):
            epoch, position = divmod(step, steps_per_epoch)
            if position == 0 or step == first:
                order = epoch_order(len(images_NHWC), seed=config.seed, epoch=epoch)
            rows_B = order[position * config.batch_size : (position + 1) * config.batch_size]
            factor = learning_rate_factor(step, steps=steps, warmup_steps=warmup_steps)
            set_learning_rate(optimizer, config.optimizer.learning_rate * factor)
            result = self._step(task, optimizer, rows_B, images_NHWC, generator)
            progress = clock.progress(step + 1, epoch + 1, config.epochs, result)
            self._after_step(progress, task, optimizer, generator)
        task.module.eval()

    def _step(
        self,
        task: Task,
        optimizer: torch.optim.Optimizer,
        rows_B: Tensor,
        images_NHWC: NDArray[np.uint8],
        generator: torch.Generator,
    ) -> StepResult:
        images_BHWC = read_rows(images_NHWC, rows_B, self.device)
        with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self._mixed()):
            result = task.step(images_BHWC, rows_B.to(self.device), generator)
        optimizer.zero_grad(set_to_none=True)
        result.loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return result

    def _mixed(self) -> bool:
        """bfloat16 where the hardware has it: no loss scaling, so nothing more to checkpoint."""
        return self.device.startswith("cuda") and torch.cuda.is_bf16_supported(
            including_emulation=False
        )

    def _resume(
        self, task: Task, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> int:
        state = self.checkpoint.load() if self.checkpoint else None
        if state is None:
            return 0
        restore(state, task.module, optimizer, generator)
        return state.step

    def _after_step(
        self,
        progress: Progress,
        task: Task,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> None:
        if not math.isfinite(progress.loss):
            raise Diverged(
                f"The loss became {progress.loss} at step {progress.step} of {progress.steps}. "
                f"Try a smaller learning_rate (now {self.config.optimizer.learning_rate:g}) or a "
                "longer warm-up."
            )
        if self.on_step:
            self.on_step(progress)
        stop = self.should_stop is not None and self.should_stop()
        if self.checkpoint and (stop or self.checkpoint.due()):
            self.checkpoint.save(capture(progress.step, task.module, optimizer, generator))
        if stop:
            raise Stopped(f"stopped after step {progress.step} of {progress.steps}")


class _Clock:
    """Speed and time left, from the steps of this process only."""

    def __init__(self, first: int, steps: int, batch_size: int) -> None:
        self.first = first
        self.steps = steps
        self.batch_size = batch_size
        self.started = time.monotonic()

    def progress(self, step: int, epoch: int, epochs: int, result: StepResult) -> Progress:
        loss = result.loss.item()  # waits for the device, so the time is that of finished work
        seconds_a_step = (time.monotonic() - self.started) / (step - self.first)
        return Progress(
            step=step,
            steps=self.steps,
            epoch=epoch,
            epochs=epochs,
            loss=loss,
            images_per_second=self.batch_size / max(seconds_a_step, 1e-9),
            seconds_left=seconds_a_step * (self.steps - step),
            metrics={name: value.item() for name, value in result.metrics.items()},
        )
