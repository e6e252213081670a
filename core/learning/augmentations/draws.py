"""Random numbers, on the device of their generator."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Evenly spread over [low, high); float32, (count,)."""
    return torch.rand(count, generator=generator, device=generator.device) * (high - low) + low


def chosen(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """True with the given probability; bool, (count,)."""
    return torch.rand(count, generator=generator, device=generator.device) < probability
