"""Same seed, same weights."""

from __future__ import annotations

import torch


def seed_everything(seed: int) -> None:
    """Seed torch's generators on all devices and let cuDNN use deterministic kernels only."""
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def generator(seed: int, device: str) -> torch.Generator:
    """A generator of its own on the device, so that nothing else can advance it."""
    return torch.Generator(device=device).manual_seed(seed)
