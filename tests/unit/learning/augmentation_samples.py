"""Images for the tests of augmentations, and one view of each."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from core.learning.augmentations import AugmentationConfig, augment

EVERYTHING = AugmentationConfig(
    crop_area=(0.2, 1.0),
    crop_ratio=4 / 3,
    flip=0.5,
    vertical_flip=0.5,
    quarter_turns=True,
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.2,
    jitter=0.8,
    grey=0.2,
    blur=0.5,
    solarize=0.3,
)


def smooth_images(count: int, size: int, channels: int) -> Tensor:
    """So that interpolation rules matter little, and far from 0 and 1."""
    rough = torch.rand(count, channels, 5, 5, generator=torch.Generator().manual_seed(size))
    smooth: Tensor = reference.resize(rough, [size, size], antialias=True) * 100 + 70
    return smooth.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def rough_images(count: int, size: int, channels: int) -> Tensor:
    """Every pixel unlike its neighbours."""
    shape, generator = (count, size, size, channels), torch.Generator().manual_seed(size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def one_view(
    images_BHWC: Tensor, config: AugmentationConfig, seed: int = 0, *, compiled: bool = True
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    views_1BCHW = augment(
        images_BHWC, config=config, views=1, generator=generator, compiled=compiled
    )
    return views_1BCHW[0]


def as_floats(images_BHWC: Tensor) -> Tensor:
    return images_BHWC.permute(0, 3, 1, 2) / 255
