"""scikit-learn's digits, as a tiny encoder with random weights sees them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor

from core.learning.data import channel_statistics
from core.learning.encoders import Encoder, create_encoder
from core.learning.evaluation import features
from core.learning.preprocessing import Preprocessing

Canvases = NDArray[np.uint8]
Targets = NDArray[np.int64]


def canvases() -> tuple[Canvases, Targets]:
    """1,797 grey canvases of 8x8 in an order of their own, and their digits."""
    pixels, targets = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(targets))
    greys = np.round(pixels.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8)
    return greys[order], targets[order].astype(np.int64)


def preprocessing_of(images: Canvases) -> Preprocessing:
    """With the statistics of these."""
    mean, std = channel_statistics(images)
    return Preprocessing(image_size=8, channels=1, mean=mean, std=std)


def random_encoder() -> Encoder:
    """The same weights every time."""
    torch.manual_seed(0)
    return create_encoder("resnet10_tiny", image_size=8, channels=1)


def random_features() -> tuple[Tensor, Tensor]:
    """Features (1797, 128) and digits."""
    images, targets = canvases()
    found = features(random_encoder(), images, preprocessing_of(images))
    return found.clone(), torch.from_numpy(targets)


def rows_of_each(targets: Tensor, count: int, *, start: int = 0) -> Tensor:
    """The first rows of each class."""
    rows = [(targets == digit).nonzero().flatten()[start : start + count] for digit in range(10)]
    return torch.cat(rows)


def of_each(
    digits: tuple[Canvases, Targets], count: int, *, start: int = 0
) -> tuple[Canvases, Targets]:
    """So many labelled canvases of each class."""
    rows = rows_of_each(torch.from_numpy(digits[1]), count, start=start).numpy()
    return digits[0][rows], digits[1][rows]
