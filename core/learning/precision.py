"""Which numbers a step of training computes with."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import EfficientNet, MobileNetV3

FLOAT32, MIXED = "float32", "mixed"
PRECISIONS = (MIXED, FLOAT32)
BFLOAT16 = "bfloat16"
# Instructions of processors; without them bfloat16 is emulated, at a tenth of the speed.
INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
# Their depthwise convolutions take twice as long in bfloat16 on a CPU that has it.
SLOWER = (MobileNetV3, EfficientNet)


def precision_of(module: nn.Module, *, wanted: str, device: str) -> str:
    """What a training computes its products in: "bfloat16" or "float32".

    Mixed precision: matrix products and convolutions in bfloat16; weights, losses and what is
    added up over a batch in float32 (`torch.autocast`). bfloat16 has the range of float32, so no
    loss is scaled and a checkpoint has nothing more to hold.

    Args:
        module: What is trained.
        wanted: One of `PRECISIONS`; "mixed" is so only where that is faster on this device.
        device: As torch names it.
    """
    if wanted not in PRECISIONS:
        raise ValueError(f"precision: found {wanted!r}, allowed are {', '.join(PRECISIONS)}")
    if wanted == FLOAT32:
        return FLOAT32
    return BFLOAT16 if _faster(module, device.split(":")[0]) else FLOAT32


def _faster(module: nn.Module, device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has_it = device == "cpu" and cpu_has_bfloat16()
    return has_it and not any(isinstance(part, SLOWER) for part in module.modules())


def cpu_has_bfloat16() -> bool:
    """Whether this machine's processor has instructions for products of bfloat16."""
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in INSTRUCTIONS)
