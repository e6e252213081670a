"""Labelled canvases, and what is to be said about how many there are of each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# From here on the classes count alike in the loss, when that is left open.
IMBALANCE = 3.0


@dataclass(frozen=True, slots=True)
class Labelled:
    """uint8 canvases and the class of each."""

    images_NHWC: NDArray[np.uint8]
    targets_N: Tensor

    @classmethod
    def of(
        cls, images_NHWC: NDArray[np.uint8], targets_N: NDArray[np.int64], *, class_count: int
    ) -> Labelled:
        """Check that they fit together.

        Raises:
            ValueError: They do not.
        """
        images, targets = len(images_NHWC), np.asarray(targets_N, dtype=np.int64)
        if images != len(targets) or images < 1:
            raise ValueError(
                f"found {images} images and {len(targets)} targets, "
                "as many of both and at least 1 are needed"
            )
        if targets.min() < 0 or targets.max() >= class_count:
            raise ValueError(
                f"targets: found {targets.min()} to {targets.max()}, "
                f"allowed are 0 to {class_count - 1}"
            )
        return cls(images_NHWC, torch.from_numpy(targets))

    def __len__(self) -> int:
        return len(self.targets_N)

    def rows(self, chosen_N: Tensor) -> Labelled:
        """Those for which it says true."""
        return Labelled(self.images_NHWC[chosen_N.numpy()], self.targets_N[chosen_N])


def class_weights(targets_N: Tensor, *, class_count: int, rule: str) -> Tensor | None:
    """Weights of the classes in the loss, (class_count,), such that those of all labels sum to N.

    Args:
        targets_N: Class indices.
        class_count: A class without labels has weight 1.
        rule: "none"; "balanced": a class's weight is N / (classes with labels x its labels);
            "auto": balanced when one class has more than three times the labels of another.

    Returns:
        None when all labels weigh alike.
    """
    counts_K = targets_N.bincount(minlength=class_count)
    present_K = counts_K[counts_K > 0]
    uneven = float(present_K.max() / present_K.min()) > IMBALANCE
    if rule == "none" or (rule == "auto" and not uneven):
        return None
    weights_K = len(targets_N) / (len(present_K) * counts_K.clamp(min=1).double())
    return torch.where(counts_K > 0, weights_K, 1.0)


def label_warnings(targets_N: Tensor, *, class_count: int, weighted: bool) -> list[str]:
    """What whoever gave the labels should know about their numbers, in sentences."""
    counts_K = targets_N.bincount(minlength=class_count)
    present_K = counts_K[counts_K > 0]
    most, fewest = int(present_K.max()), int(present_K.min())
    warnings = []
    if absent := int((counts_K == 0).sum()):
        warnings.append(f"{absent} of {class_count} classes have no label and are never predicted.")
    if most > IMBALANCE * fewest:
        means = (
            "every class has the same say in the loss"
            if weighted
            else "rare classes may be overlooked; class_weights 'balanced' gives them more say"
        )
        warnings.append(f"The largest class has {most} labels, the smallest {fewest}: {means}.")
    single = int((present_K == 1).sum())
    if single == len(present_K):
        warnings.append(
            "No class has more than one label: nothing can be held out, so method, layer and "
            "penalty are defaults, and neither accuracy nor confidence could be checked."
        )
    elif single:
        warnings.append(
            f"{single} of {class_count} classes have a single label, which is never held out: "
            "how well they are recognised is not known."
        )
    return warnings
