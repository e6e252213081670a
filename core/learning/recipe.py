"""What the training of every stage is configured with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

from core.learning.optimizers import OptimizerConfig, scaled_rate


class StageConfig(Protocol):
    """The part that the configurations of all stages share."""

    @property
    def epochs(self) -> int | None: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def optimizer(self) -> str: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def lr_scaling(self) -> str: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def warmup_epochs(self) -> float: ...
    @property
    def clip_grad_norm(self) -> float | None: ...
    @property
    def budget_minutes(self) -> float | None: ...
    @property
    def precision(self) -> str: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerConfig:
    """Length, batches, optimizer and seed of a run.

    Attributes:
        epochs: Passes over the images; not used, and None if so wanted, when there is a budget.
        batch_size: Images a step, over all processes.
        optimizer: Its learning rate is the peak, already scaled.
        warmup_epochs: In which the rate rises linearly; less under a short budget (see `Schedule`).
        seed: All that is random follows from it.
        clip_grad_norm: Longest that the gradient of a step may be; None = any length.
        budget_minutes: Train for about this long in place of `epochs` (see `Budget`).
        precision: One of `core.learning.precision.PRECISIONS`.
    """

    epochs: int | None
    batch_size: int
    optimizer: OptimizerConfig
    warmup_epochs: float
    seed: int
    clip_grad_norm: float | None = None
    budget_minutes: float | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.epochs is None and self.budget_minutes is None:
            raise ValueError("epochs and budget_minutes: found neither, one of them is needed")
        if (self.epochs is not None and self.epochs < 1) or self.batch_size < 2:
            raise ValueError(
                f"epochs and batch_size: found {self.epochs} and {self.batch_size}, "
                "at least 1 and 2 are needed"
            )
        for name in ("clip_grad_norm", "budget_minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}: found {value}, more than 0 is needed")

    @classmethod
    def of(cls, config: StageConfig) -> Self:
        """The loop's part of a stage's configuration."""
        peak = scaled_rate(
            config.learning_rate, scaling=config.lr_scaling, batch_size=config.batch_size
        )
        return cls(
            epochs=config.epochs,
            batch_size=config.batch_size,
            optimizer=OptimizerConfig(
                name=config.optimizer, learning_rate=peak, weight_decay=config.weight_decay
            ),
            warmup_epochs=config.warmup_epochs,
            seed=config.seed,
            clip_grad_norm=config.clip_grad_norm,
            budget_minutes=config.budget_minutes,
            precision=config.precision,
        )
