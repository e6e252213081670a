"""One training loop for every task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.learning.agreement import mean_of_all, of_first
from core.learning.batches import Batches, Shuffled
from core.learning.budget import Budget
from core.learning.checkpoint import Checkpoint, capture, restore
from core.learning.determinism import mixed_seed
from core.learning.distributed import all_stop, average_gradients, world, wrap
from core.learning.feeder import Fed, Feeder
from core.learning.optimizers import build_optimizer, set_learning_rate
from core.learning.precision import BFLOAT16, precision_of
from core.learning.progress import Progress, Stopwatch
from core.learning.recipe import StageConfig, TrainerConfig
from core.learning.schedule import Schedule
from core.learning.tasks import Inputs, Monitor, StepResult, Task

__all__ = [
    "Diverged",
    "Finished",
    "Progress",
    "StageConfig",
    "Stopped",
    "Trainer",
    "TrainerConfig",
]


class Stopped(Exception):
    """Training was asked to stop; the checkpoint, if there is one, holds what was done."""


class Diverged(Exception):
    """The loss is no longer a number; the message says what to change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """What a run came to, interruptions included."""

    steps: int
    epochs: float
    seconds: float
    stopped_early: bool
    precision: str


class Trainer:
    """Trains a task; reports after each step and can be stopped and resumed between steps.

    Args:
        config: See `TrainerConfig`.
        device: Where to train.
        on_step: Called after each step, in the first process.
        on_end: Called in the first process with the steps of a training that has come to its end.
        should_stop: Asked after each step.
        checkpoint: Where to keep the state of the run, and to look for it at the start.
        clock: Seconds from anywhere, for speed and budget.
    """

    def __init__(
        self,
        config: TrainerConfig,
        *,
        device: str = "cpu",
        on_step: Callable[[Progress], None] | None = None,
        on_end: Callable[[int], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        checkpoint: Checkpoint | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.device = device
        self.on_step = on_step
        self.on_end = on_end
        self.should_stop = should_stop
        self.checkpoint = checkpoint
        self.clock = clock

    def fit(
        self,
        task: Task[Inputs],
        images_NHWC: NDArray[np.uint8],
        *,
        batches: Batches | None = None,
        monitor: Monitor | None = None,
    ) -> Finished:
        """Train the task's module in place, on the device, and leave it in eval mode.

        Args:
            task: What to train.
            images_NHWC: uint8 canvases, in memory or mapped.
            batches: Rows of each step; every image once an epoch when left out.
            monitor: Looks at the run, and may end it early.

        Raises:
            ValueError: There are fewer images than a batch needs, or a batch cannot be split
                evenly over the processes.
            Stopped: `should_stop` said so.
            Diverged: The loss became infinite or not a number.
        """
        size, processes = self.config.batch_size, world().size
        if size % processes:
            raise ValueError(
                f"batch_size: found {size}, {processes} processes need a multiple of {processes}"
            )
        if batches is None:
            batches = Shuffled(len(images_NHWC), batch_size=size, seed=self.config.seed)
        loop = _Loop(self, task, batches=batches, monitor=monitor)
        return loop.run(images_NHWC)


class _Loop(Generic[Inputs]):
    """One call of `fit`."""

    def __init__(
        self, trainer: Trainer, task: Task[Inputs], *, batches: Batches, monitor: Monitor | None
    ) -> None:
        self.trainer = trainer
        self.config = trainer.config
        self.device = trainer.device
        self.task = task
        self.batches = batches
        self.monitor = monitor
        self.world = world()
        wrap(task.module.to(self.device).train())
        wanted = self.config.precision
        self.precision = precision_of(task.module, wanted=wanted, device=self.device)
        self.optimizer = build_optimizer(task.module, self.config.optimizer)
        self.step = 0
        notes = self._resume()
        self.stopwatch = Stopwatch(notes.get("seconds", 0.0), clock=trainer.clock)
        self.steps: int | None = notes.get("steps")
        self.stopped_early: bool = notes.get("stopped_early", False)
        planned = round(self.config.warmup_epochs * batches.steps_per_epoch)
        self.schedule = Schedule.of(notes.get("schedule", {}), warmup=planned)
        self.budget: Budget | None = None
        if self.config.budget_minutes is not None:
            seconds = self.config.budget_minutes * 60
            self.budget = Budget(seconds, elapsed=self.stopwatch.elapsed, steps=self.steps)
        elif self.steps is None:
            assert self.config.epochs is not None
            self.steps = self.config.epochs * batches.steps_per_epoch

    def run(self, images_NHWC: NDArray[np.uint8]) -> Finished:
        """Train to the end."""
        with Feeder(
            self.task,
            images_NHWC,
            rows_of=self._rows,
            seed=self.config.seed,
            rank=self.world.rank,
            device=self.device,
            ahead=self.device.startswith("cuda"),
        ) as feeder:
            while self.steps is None or self.step < self.steps:
                result = self._train(feeder.take(self.step))
                self._after_step(result, feeder.waited)
        self.task.module.eval()
        if self.world.rank == 0 and self.trainer.on_end:
            self.trainer.on_end(self.step)
        return Finished(
            steps=self.step,
            epochs=self.step / self.batches.steps_per_epoch,
            seconds=self.stopwatch.elapsed(),
            stopped_early=self.stopped_early,
            precision=self.precision,
        )

    def _rows(self, step: int) -> Tensor:
        """The part of a batch that is this process's."""
        return self.batches.rows(step).chunk(self.world.size)[self.world.rank]

    def _train(self, fed: Fed[Inputs]) -> StepResult:
        module, config = self.task.module, self.config
        rate = config.optimizer.learning_rate * self.schedule.factor(self.step, self.steps)
        set_learning_rate(self.optimizer, rate)
        # Dropout and the like draw from here: seeded by the step, they need no checkpoint.
        torch.manual_seed(mixed_seed(config.seed, self.step, self.world.rank, 1))
        mixed = self.precision == BFLOAT16
        with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=mixed):
            result = self.task.step(fed.inputs, fed.rows_B)
        self.optimizer.zero_grad(set_to_none=True)
        if result.backward is None:
            torch.autograd.backward(result.loss)
        else:
            result.backward()
        average_gradients(module)
        metrics = {**result.metrics, "learning_rate": torch.tensor(rate)}
        if config.clip_grad_norm is not None:
            metrics["grad_norm"] = torch.nn.utils.clip_grad_norm_(
                module.parameters(), config.clip_grad_norm
            )
        self.optimizer.step()
        return replace(result, metrics=metrics)

    def _after_step(self, result: StepResult, waited: float) -> None:
        values = _scalars(result)  # waits for the device, so the time is that of finished work
        self.step += 1
        loss = values.pop("loss")
        self._require_finite(loss)
        self.stopwatch.step_done(waited)
        if self.budget is not None and not self.stopped_early:
            known, self.steps = self.steps, of_first(self.budget.after(self.step))
            if known is None and self.steps is not None:
                self.schedule.length_known(self.step, self.steps)
        probed = self._look(loss)
        progress = self._progress(loss, values, probed)
        first = self.world.rank == 0
        if first and self.trainer.on_step:
            self.trainer.on_step(progress)
        stop = all_stop(self.trainer.should_stop is not None and self.trainer.should_stop())
        checkpoint = self.trainer.checkpoint
        if first and checkpoint and (stop or checkpoint.due()) and checkpoint.allowed():
            checkpoint.save(capture(self.step, self.task.module, self.optimizer, self._notes()))
        if stop:
            raise Stopped(f"stopped after step {self.step} of {progress.steps}")

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise Diverged(
                f"The loss became {loss} at step {self.step}. Try a smaller learning_rate (now "
                f"{self.config.optimizer.learning_rate:g}) or a longer warm-up."
            )

    def _look(self, loss: float) -> dict[str, float]:
        """What the monitor measures after this step; the others wait for the first process."""
        if self.monitor is None:
            return {}
        self.monitor.note(loss)
        if not self.monitor.due(self.step, self.steps):
            return {}
        probed = self.monitor.look(self.step) if self.world.rank == 0 else {}
        if all_stop(self.monitor.finished) and self.step != self.steps:
            self.steps, self.stopped_early = self.step, True
        return probed

    def _progress(
        self, loss: float, metrics: Mapping[str, float], probed: Mapping[str, float]
    ) -> Progress:
        pace = self.stopwatch.seconds_a_step
        if self.steps is None:
            assert self.budget is not None
            left = max(0.0, self.budget.seconds - self.stopwatch.elapsed())
            steps = self.step + max(1, round(left / pace))
        else:
            steps, left = self.steps, (self.steps - self.step) * pace
        return Progress(
            step=self.step,
            steps=steps,
            epoch=math.ceil(self.step / self.batches.steps_per_epoch),
            epochs=math.ceil(steps / self.batches.steps_per_epoch),
            loss=loss,
            images_per_second=self.config.batch_size / pace,
            seconds_left=left,
            data_wait=self.stopwatch.data_wait,
            message=self.monitor.message if self.monitor else None,
            probed=bool(probed),
            metrics={**metrics, **probed},
        )

    def _notes(self) -> dict[str, Any]:
        return {
            "seconds": self.stopwatch.elapsed(),
            "steps": self.steps,
            "schedule": self.schedule.state(),
            "stopped_early": self.stopped_early,
            "monitor": self.monitor.state() if self.monitor else None,
        }

    def _resume(self) -> dict[str, Any]:
        state = self.trainer.checkpoint.load() if self.trainer.checkpoint else None
        if state is None:
            return {}
        notes = restore(state, self.task.module, self.optimizer)
        self.step = state.step
        if self.monitor:
            self.monitor.resume(notes["monitor"])
        return notes


def _scalars(result: StepResult) -> dict[str, float]:
    """Loss and metrics, in several processes the mean over them."""
    scalars = {"loss": result.loss, **result.metrics}
    values_K = torch.stack([value.detach().double().cpu() for value in scalars.values()])
    return dict(zip(scalars, mean_of_all(values_K).tolist(), strict=True))
