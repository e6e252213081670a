"""Contrastive batches larger than memory (gradient caching, arXiv 2101.06983, section 3).

The loss needs the projections of the whole batch, the encoder only those of a chunk:

1. without a graph, project chunk by chunk;
2. find the loss, and its gradient by every projection;
3. project chunk by chunk again, with a graph, and go on from that gradient.

The gradient is that of the whole batch, for twice the forward passes and the memory of a chunk.
Batch normalisation sees a chunk at a time ("ghost batches", arXiv 1705.08741): every chunk is
normalised by its own statistics, so such a network is trained as if by a smaller batch there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def cached_step(
    encode: Callable[[int], Tensor],
    chunks: int,
    *,
    loss_of: Callable[[Tensor], Tensor],
    module: nn.Module,
) -> tuple[Tensor, Callable[[], None]]:
    """Loss of a batch of any size, and a function that adds its gradient to the parameters.

    Args:
        encode: Projections of the chunk of this number, (..., rows, D). It is called twice for
            each and must give the same: dropout does by itself, augmentations must be replayed.
        chunks: Into how many chunks the batch is cut.
        loss_of: Scalar loss of all projections, the chunks' rows one after another.
        module: What `encode` trains. Its running statistics move once a step, by the mean over
            the chunks.

    Returns:
        The loss, without a graph, and the backward pass, to be called once.
    """
    seeds = torch.randint(2**62, (chunks,)).tolist()
    with torch.no_grad(), running_statistics_kept(module):
        projections = [_encode(encode, chunk, seeds[chunk]) for chunk in range(chunks)]
    rows = [z.shape[-2] for z in projections]
    with torch.enable_grad():
        z = torch.cat(projections, dim=-2).requires_grad_()
        loss = loss_of(z)
        (grad,) = torch.autograd.grad(loss, z)
    device = z.device.type
    autocast, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def backward() -> None:
        for chunk, cached in enumerate(torch.split(grad, rows, dim=-2)):
            with (
                torch.autocast(device, dtype, enabled=autocast),
                running_statistics_shared(module, chunk, chunks),
            ):
                again = _encode(encode, chunk, seeds[chunk])
            torch.autograd.backward(again, cached)

    return loss.detach(), backward


@contextmanager
def running_statistics_kept(module: nn.Module) -> Iterator[None]:
    """Normalise by batch statistics inside, without noting them."""
    norms = [norm for norm in _norms(module) if norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextmanager
def running_statistics_shared(module: nn.Module, chunk: int, chunks: int) -> Iterator[None]:
    """Let the chunks of a step, in turn, move the running statistics as one batch would.

    With momentum m / (K − (K − k) m) for chunk k of K, counted from one, every chunk's statistics
    end with weight m / K, and what was there before with 1 − m.
    """
    momenta = [(norm, norm.momentum) for norm in _norms(module) if norm.momentum is not None]
    for norm, momentum in momenta:
        norm.momentum = momentum / (chunks - (chunks - chunk - 1) * momentum)
    try:
        yield
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum
            if chunk > 0 and norm.num_batches_tracked is not None:
                norm.num_batches_tracked -= 1


def _norms(module: nn.Module) -> list[_BatchNorm]:
    """The ones that normalise by batch statistics."""
    return [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.training]


def _encode(encode: Callable[[int], Tensor], chunk: int, seed: int) -> Tensor:
    """Projections of a chunk, with the same dropout for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return encode(chunk)
