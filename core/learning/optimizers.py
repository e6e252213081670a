"""Optimizers and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

OPTIMIZERS: tuple[str, ...] = ("sgd", "lars", "adamw")
LR_SCALINGS: tuple[str, ...] = ("none", "sqrt", "linear")
SCALING_BATCH = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """How weights are changed.

    Attributes:
        name: One of `OPTIMIZERS`.
        learning_rate: Peak of the schedule.
        weight_decay: Decoupled (adamw) or L2 (others).
        momentum: Of sgd and lars.
        rate_factors: Parameters whose name begins with the key learn at this multiple of the rate;
            the first key that fits counts.
    """

    name: str
    learning_rate: float
    weight_decay: float
    momentum: float = 0.9
    rate_factors: Mapping[str, float] = field(default_factory=dict)


def scaled_rate(learning_rate: float, *, scaling: str, batch_size: int) -> float:
    """The peak learning rate for a batch, from a base rate for 256 images.

    `linear` multiplies by B / 256 (arXiv 1706.02677, section 2.1; SimCLR, arXiv 2002.05709,
    section 2.3), `sqrt` by the square root of that, which SimCLR finds better for small batches
    and short training (its appendix B.1: 0.075 sqrt(B) = 1.2 sqrt(B / 256)).

    Args:
        learning_rate: Base rate.
        scaling: One of `LR_SCALINGS`; "none" leaves the rate as it is.
        batch_size: Images of one optimizer step, over all processes.

    Raises:
        ValueError: There is no scaling of this name.
    """
    if scaling == "none":
        return learning_rate
    if scaling == "linear":
        return learning_rate * batch_size / SCALING_BATCH
    if scaling == "sqrt":
        return learning_rate * math.sqrt(batch_size / SCALING_BATCH)
    raise ValueError(f"lr_scaling: found {scaling!r}, allowed are {', '.join(LR_SCALINGS)}")


def build_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """An optimizer that neither decays norms and biases nor applies LARS' trust ratio to them.

    Raises:
        ValueError: There is no optimizer of this name.
    """
    groups = _groups(module, config.rate_factors)
    rate, decay = config.learning_rate, config.weight_decay
    if config.name == "sgd":
        return torch.optim.SGD(
            groups, lr=rate, weight_decay=decay, momentum=config.momentum, nesterov=True
        )
    if config.name == "adamw":
        # One pass over all parameters: on a CPU a third of the time (docs/benchmarks.md).
        return torch.optim.AdamW(groups, lr=rate, weight_decay=decay, fused=True)
    if config.name == "lars":
        # Only where it is used: it brings all networks of timm, and job processes start often.
        from timm.optim.lars import Lars  # noqa: PLC0415

        for group in groups:
            group["always_adapt"] = "weight_decay" not in group
        lars: torch.optim.Optimizer = Lars(
            groups, lr=rate, weight_decay=decay, momentum=config.momentum
        )
        return lars
    raise ValueError(f"optimizer: found {config.name!r}, allowed are {', '.join(OPTIMIZERS)}")


def _groups(module: nn.Module, rate_factors: Mapping[str, float]) -> list[dict[str, object]]:
    """Weights and, without decay, norms and biases; a pair of groups for each rate factor."""
    parameters: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            factors = (f for prefix, f in rate_factors.items() if name.startswith(prefix))
            key = next(factors, 1.0), _decays(name, parameter)
            parameters.setdefault(key, []).append(parameter)
    factors_used = dict.fromkeys(factor for factor, _ in parameters)
    groups: list[dict[str, object]] = []
    for factor in factors_used:
        weights = parameters.get((factor, True), [])
        plain = parameters.get((factor, False), [])
        groups.append({"params": weights, "rate_factor": factor})
        groups.append({"params": plain, "rate_factor": factor, "weight_decay": 0.0})
    return groups


def _decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether it is the weight of a linear layer or a convolution.

    Norms and biases have one dimension. A vision transformer's class token and positions have more,
    and so has ConvNeXt's scale of each layer (arXiv 2201.03545): they are no weights either.
    """
    return parameter.ndim > 1 and name.endswith("weight")


def learning_rate_factor(step: int, *, steps: int, warmup_steps: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then cosine to zero.

    Stateless, so a resumed run needs nothing but its step.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set it on all parameter groups, each with its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"]
