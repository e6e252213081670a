"""Training in several processes that behave as one (torch.distributed; gloo or NCCL).

Each process has an equal part of every batch. The same global batch gives the same gradients in
any number of processes: the loss compares with the projections of all, batch normalisation uses
the statistics of all, and gradients are averaged. With one process nothing here does anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from core.learning.losses import Keys


@dataclass(frozen=True, slots=True)
class World:
    """How many processes there are, and which one this is."""

    rank: int
    size: int


def world() -> World:
    """The processes of this run; one, unless `torch.distributed` was initialised."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World(0, 1)


def wrap(module: nn.Module) -> nn.Module:
    """Make every process start from the weights of the first, and share batch statistics.

    Call it once the module is on its device. Parameters and the names in its state stay the same.
    """
    if world().size > 1:
        module = synchronise_batch_norm(module)
        broadcast_parameters(module)
    return module


def gather_with_gradient(z_ND: Tensor) -> Tensor:
    """The rows of all processes, in order of rank, (size * N, D).

    The gradient of a process's rows is the sum over what all processes made of them. Every
    process must have as many rows.
    """
    if world().size == 1:
        return z_ND
    gathered: Tensor = _Gather.apply(z_ND)
    return gathered


def gather_keys(z_ND: Tensor, groups_N: Tensor) -> Keys | None:
    """What `contrastive_loss` compares this process's rows with; None when it is the only one.

    Groups must mean the same everywhere (`view_groups(..., first=...)`).
    """
    this = world()
    if this.size == 1:
        return None
    groups_N = groups_N.to(z_ND.device).contiguous()
    groups = [torch.empty_like(groups_N) for _ in range(this.size)]
    dist.all_gather(groups, groups_N)
    return Keys(gather_with_gradient(z_ND), torch.cat(groups), offset=this.rank * len(z_ND))


def all_stop(flag: bool) -> bool:
    """Whether any process says so; all get the same answer."""
    if world().size == 1:
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    flags = torch.tensor([flag], dtype=torch.int32, device=device)
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags.item())


def average_gradients(module: nn.Module) -> None:
    """Replace each gradient by its mean over the processes; call it before the optimiser."""
    this = world()
    grads = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    if this.size == 1 or not grads:
        return
    # One message: for the many small tensors of a network, latency is what costs.
    flat = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(flat)
    flat /= this.size
    parts = torch.split(flat, [grad.numel() for grad in grads])
    for grad, part in zip(grads, parts, strict=True):
        grad.copy_(part.view_as(grad))


def broadcast_parameters(module: nn.Module) -> None:
    """Copy the parameters and buffers of the first process to all others."""
    if world().size > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)


class SynchronisedBatchNorm(_BatchNorm):
    """Batch normalisation by the statistics of all processes, on any device.

    `torch.nn.SyncBatchNorm` does the same on GPUs only. Every process must have as many values.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised inputs, of their shape: (B, C) or (B, C, ...)."""
        if not self.training or world().size == 1:
            return super().forward(inputs)
        axes = [axis for axis in range(inputs.ndim) if axis != 1]
        variances_C, means_C = torch.var_mean(inputs.float(), axes, correction=0)
        # The parts are equally large, so total variance = mean variance + variance of means.
        means_WC, variances_WC = gather_with_gradient(
            torch.cat([means_C, variances_C])[None]
        ).chunk(2, dim=1)
        mean_C = means_WC.mean(dim=0)
        variance_C = variances_WC.mean(dim=0) + means_WC.var(dim=0, correction=0)
        if self.track_running_stats:
            self._note(mean_C.detach(), variance_C.detach(), inputs.numel() // len(mean_C))
        scale_C = self.weight * (variance_C + self.eps).rsqrt()
        shape = [-1 if axis == 1 else 1 for axis in range(inputs.ndim)]
        shift_C = self.bias - mean_C * scale_C
        return (inputs * scale_C.view(shape) + shift_C.view(shape)).to(inputs.dtype)

    def _note(self, mean_C: Tensor, variance_C: Tensor, count: int) -> None:
        """Move the running statistics, in them the variance without bias."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        total = count * world().size
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(variance_C * total / (total - 1), self.momentum)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"inputs: found {input.ndim} axes, at least 2 are needed")


def synchronise_batch_norm(module: nn.Module) -> nn.Module:
    """The module with every batch normalisation in it replaced, parameters and buffers kept."""
    if isinstance(module, _BatchNorm):
        if next(module.parameters()).device.type == "cuda":
            fused: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
            return fused
        synchronised = SynchronisedBatchNorm(module.num_features)
        synchronised.__dict__.update(module.__dict__)
        return synchronised
    for name, child in module.named_children():
        setattr(module, name, synchronise_batch_norm(child))
    return module


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z_ND: Tensor) -> Tensor:
        ctx.rows = len(z_ND)
        parts = [torch.empty_like(z_ND) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, z_ND.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_MD: Tensor) -> Tensor:
        total_MD = grad_MD.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total_MD)
        first: int = dist.get_rank() * ctx.rows
        return total_MD[first : first + ctx.rows]
