"""Reading batches from an array of canvases, in memory or mapped from disk."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def channel_statistics(
    images_NHWC: NDArray[np.uint8], *, limit: int = 4096
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of values in [0, 1].

    Args:
        images_NHWC: Canvases.
        limit: Most images to read; they are evenly spaced, so the result is deterministic.
    """
    rows = np.unique(np.linspace(0, len(images_NHWC) - 1, min(limit, len(images_NHWC))).astype(int))
    channels = images_NHWC.shape[-1]
    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    for chunk in np.array_split(rows, max(1, len(rows) // 256)):
        pixels_PC = images_NHWC[chunk].reshape(-1, channels) / 255.0
        total += pixels_PC.sum(axis=0)
        squares += np.square(pixels_PC).sum(axis=0)
        count += len(pixels_PC)
    mean = total / count
    # A floor of one grey level: blank images must not blow noise up.
    std = np.sqrt(np.maximum(squares / count - np.square(mean), (1 / 255) ** 2))
    return tuple(mean.tolist()), tuple(std.tolist())


def read_rows(images_NHWC: NDArray[np.uint8], rows_B: Tensor, device: str) -> Tensor:
    """The rows (in their order) as a uint8 tensor on the device; other rows are not read.

    To a GPU they go from pinned memory, so that nobody waits for the copy.
    """
    batch_BHWC = torch.from_numpy(np.ascontiguousarray(images_NHWC[rows_B.numpy()]))
    if device.startswith("cuda"):
        return batch_BHWC.pin_memory().to(device, non_blocking=True)
    return batch_BHWC.to(device)


def epoch_order(count: int, *, seed: int, epoch: int) -> Tensor:
    """Permutation of the rows for one epoch; depends on nothing but its arguments."""
    mixed = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=mixed)


def stratified_folds(targets_N: Tensor, *, folds: int, seed: int) -> Tensor:
    """Fold of each row, such that every class is spread evenly over the folds."""
    mixed = torch.Generator().manual_seed(seed)
    fold_N = torch.empty_like(targets_N)
    taken = 0
    for target in torch.unique(targets_N):
        rows = (targets_N == target).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=mixed)]
        # Going on where the last class ended keeps the folds equally large.
        fold_N[rows] = (torch.arange(len(rows)) + taken) % folds
        taken += len(rows)
    return fold_N
