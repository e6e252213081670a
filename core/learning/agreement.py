"""Numbers that all processes of a training must agree on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist

from core.learning.distributed import world


def of_first(value: int | None) -> int | None:
    """What the first process says, in all of them."""
    if world().size == 1:
        return value
    said = torch.tensor([-1 if value is None else value], dtype=torch.int64, device=_device())
    dist.broadcast(said, src=0)
    return None if said.item() < 0 else int(said.item())


def mean_of_all(values_K: Tensor) -> Tensor:
    """The mean over the processes of each value; the values themselves in one process."""
    if world().size == 1:
        return values_K
    total_K = values_K.to(_device())
    dist.all_reduce(total_K)
    return total_K / world().size


def _device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"
