"""Tiny images with something to learn: bright bars at a place and angle that make the class."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from core.learning.preprocessing import Preprocessing


@pytest.fixture(scope="session")
def bars() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """240 canvases of 8x8 grey pixels in 4 classes."""
    generator = np.random.default_rng(0)
    targets = np.arange(240) % 4
    images = generator.integers(0, 60, (240, 8, 8, 1), dtype=np.uint8)
    for image, target in zip(images, targets, strict=True):
        place = generator.integers(0, 3) + (4 if target % 2 else 0)
        if target < 2:
            image[place : place + 2] += 150
        else:
            image[:, place : place + 2] += 150
    return images, targets.astype(np.int64)


@pytest.fixture(scope="session")
def preprocessing() -> Preprocessing:
    return Preprocessing(image_size=8, channels=1, mean=(0.3,), std=(0.25,))
