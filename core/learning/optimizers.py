"""Optimizers and the learning-rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from timm.optim.lars import Lars
from torch import nn

OPTIMIZERS: tuple[str, ...] = ("sgd", "lars", "adamw")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """Name (one of `OPTIMIZERS`), peak learning rate, decoupled or L2 weight decay, momentum."""

    name: str
    learning_rate: float
    weight_decay: float
    momentum: float = 0.9


def build_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """An optimizer that neither decays norms and biases nor applies LARS' trust ratio to them.

    Raises:
        ValueError: There is no optimizer of this name.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    decayed: dict[str, Any] = {"params": [p for p in parameters if p.ndim > 1]}
    plain: dict[str, Any] = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
    rate, decay = config.learning_rate, config.weight_decay
    if config.name == "sgd":
        return torch.optim.SGD(
            [decayed, plain], lr=rate, weight_decay=decay, momentum=config.momentum, nesterov=True
        )
    if config.name == "adamw":
        return torch.optim.AdamW([decayed, plain], lr=rate, weight_decay=decay)
    if config.name == "lars":
        groups = [decayed | {"always_adapt": True}, plain | {"always_adapt": False}]
        lars: torch.optim.Optimizer = Lars(
            groups, lr=rate, weight_decay=decay, momentum=config.momentum
        )
        return lars
    raise ValueError(f"optimizer: found {config.name!r}, allowed are {', '.join(OPTIMIZERS)}")


def learning_rate_factor(step: int, *, steps: int, warmup_steps: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then cosine to zero.

    Stateless, so a resumed run needs nothing but its step.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set it on all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
