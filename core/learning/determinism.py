"""Same seed, same weights."""

from __future__ import annotations

import hashlib

import torch


def seed_everything(seed: int) -> None:
    """Seed torch's generators on all devices and let cuDNN use deterministic kernels only."""
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def mixed_seed(*parts: int) -> int:
    """One seed from several numbers; neighbouring numbers give unrelated seeds.

    A sum such as `seed + step` would give the steps of seed 1 to seed 0, one step later.
    """
    text = ",".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(seed: int, device: str) -> torch.Generator:
    """A generator of its own on the device, so that nothing else can advance it."""
    return torch.Generator(device=device).manual_seed(seed)
