"""Which rows attract each other."""

from __future__ import annotations

import torch
from torch import Tensor


def view_groups(
    batch: int, views: int, *, targets_B: Tensor | None = None, first: int = 0
) -> Tensor:
    """Groups of the rows of `z_VBD.flatten(0, 1)`, (views * batch,).

    The views of an image are one group; those of all images of a class are, where it is known.

    Args:
        batch: Images.
        views: Views of each.
        targets_B: Classes, −1 where there is no label; without them every image is its own.
        first: How many images come before in the global batch, when this process has a part.
    """
    device = None if targets_B is None else targets_B.device
    groups_B = -1 - first - torch.arange(batch, device=device)
    if targets_B is not None:
        groups_B = torch.where(targets_B >= 0, targets_B, groups_B)
    return groups_B.repeat(views)


class Pairs:
    """Pairs of an anchor and a positive among rows with these groups.

    Sorted by group, the rows of a group are neighbours: its pairs are found without comparing
    every row with every other.
    """

    def __init__(self, groups_M: Tensor) -> None:
        _, group_M, sizes_G = torch.unique(groups_M, return_inverse=True, return_counts=True)
        self.sizes_M = sizes_G[group_M]
        self._starts_M = (sizes_G.cumsum(0) - sizes_G)[group_M]
        self._sorted_M = group_M.argsort()

    def of(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """All pairs of so many anchors: P rows of anchors, counted from `first`, and of keys."""
        sizes_C = self.sizes_M[first : first + count]
        anchors = torch.arange(count, device=sizes_C.device)
        anchors_P = anchors.repeat_interleave(sizes_C)
        # Pair p of all is pair p − shift of its anchor, at that place in the anchor's group.
        shifts_C = self._starts_M[first : first + count] - (sizes_C.cumsum(0) - sizes_C)
        places_P = shifts_C[anchors_P] + torch.arange(len(anchors_P), device=sizes_C.device)
        keys_P = self._sorted_M[places_P]
        others_P = keys_P != anchors_P + first
        return anchors_P[others_P], keys_P[others_P]
