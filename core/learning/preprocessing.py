"""From an image of any size to a model's input; training, evaluation and serving call these two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """Side length, channels (1 or 3) and channel statistics (of values in [0, 1]) of an input."""

    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(f"image_size: found {self.image_size}, at least 1 is needed")
        if self.channels not in (1, 3):
            raise ValueError(f"channels: found {self.channels}, allowed are 1 and 3")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(
                f"mean and std: found {len(self.mean)} and {len(self.std)} values, "
                f"{self.channels} channels need as many"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std: found {self.std}, every value must be above 0")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`, also after a trip through JSON."""
        return cls(
            image_size=values["image_size"],
            channels=values["channels"],
            mean=tuple(values["mean"]),
            std=tuple(values["std"]),
        )

    def canvas(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The centre square of an image, resized with antialiasing to the model's size.

        Args:
            image_HWC: RGB, uint8, any height and width.

        Returns:
            uint8, (S, S, C); BT.601 luma when the model has one channel.
        """
        if image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or image_HWC.dtype != np.uint8:
            raise ValueError(
                f"image: found {image_HWC.dtype} of shape {image_HWC.shape}, "
                "uint8 of shape (height, width, 3) is needed"
            )
        height, width, _ = image_HWC.shape
        # Cropping first bounds the work: resizing the shorter side of 1x5000 pixels would make
        # an image of millions of pixels only to throw them away.
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square_HWC = np.ascontiguousarray(image_HWC[top : top + side, left : left + side])
        if side == self.image_size and self.channels == 3:
            return square_HWC
        image_CHW = torch.from_numpy(square_HWC).permute(2, 0, 1)
        if side != self.image_size:
            size = [self.image_size, self.image_size]
            image_CHW = transforms.resize(image_CHW, size, antialias=True)
        if self.channels == 1:
            image_CHW = _luma(image_CHW)
        return cast("NDArray[np.uint8]", image_CHW.permute(1, 2, 0).contiguous().numpy())

    def normalise(self, images_BHWC: Tensor) -> Tensor:
        """Canvases (uint8, BHWC) as a model's input (float32, BCHW)."""
        return self.standardise(unit_range(images_BHWC))

    def standardise(self, images_BCHW: Tensor) -> Tensor:
        """Values in [0, 1] to zero mean and unit variance by this model's statistics, in place."""
        mean_C = torch.tensor(self.mean, dtype=torch.float32, device=images_BCHW.device)
        std_C = torch.tensor(self.std, dtype=torch.float32, device=images_BCHW.device)
        return images_BCHW.sub_(mean_C[:, None, None]).div_(std_C[:, None, None])


def unit_range(images_BHWC: Tensor) -> Tensor:
    """Bytes to float32 values in [0, 1], channels first."""
    return images_BHWC.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def _luma(image_CHW: Tensor) -> Tensor:
    """BT.601 luma in whole numbers, so that a grey pixel keeps its value (truncation loses one)."""
    weights_C = torch.tensor([299, 587, 114], dtype=torch.int32)
    luma_HW = (image_CHW * weights_C[:, None, None]).sum(dim=0, dtype=torch.int32)
    return ((luma_HW + 500) // 1000).to(torch.uint8)[None]
