"""How a training run talks to its surroundings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.learning.augmentations import prepare
from core.learning.checkpoint import Checkpoint
from core.learning.trainer import Progress, Trainer, TrainerConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Device, callbacks and checkpoints of a run; the defaults run quietly on the CPU.

    Attributes:
        device: As torch names it.
        on_step: Called after each step.
        on_end: Called with the steps of a training that has come to its end, those before an
            interruption included: one that had ended before makes no step to tell of.
        should_stop: Asked after each step.
        checkpoint_dir: Folder of this run alone; the same call on it resumes.
        checkpoint_seconds: Training time between two checkpoints.
        may_save: Asked before each checkpoint; not by processes that share the batches.
        processes: How many share the batches; see `core.learning.launch`.
    """

    device: str = "cpu"
    on_step: Callable[[Progress], None] | None = None
    on_end: Callable[[int], None] | None = None
    should_stop: Callable[[], bool] | None = None
    checkpoint_dir: Path | None = None
    checkpoint_seconds: float = 60.0
    may_save: Callable[[], bool] = lambda: True
    processes: int = 1

    def trainer(self, config: TrainerConfig, *, fingerprint: Mapping[str, Any]) -> Trainer:
        """A trainer that reports, stops and checkpoints as this run says."""
        if self.device == "cpu":
            prepare()  # or the first step would take longer than those that a budget is for
        checkpoint = None
        if self.checkpoint_dir is not None:
            checkpoint = Checkpoint(
                self.checkpoint_dir,
                seconds=self.checkpoint_seconds,
                fingerprint=fingerprint,
                allowed=self.may_save,
            )
        return Trainer(
            config,
            device=self.device,
            on_step=self.on_step,
            on_end=self.on_end,
            should_stop=self.should_stop,
            checkpoint=checkpoint,
        )
