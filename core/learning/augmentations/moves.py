"""Where views look: crops, rotations, shears, mirrored and turned by quarters."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from core.learning.augmentations.config import AugmentationConfig
from core.learning.augmentations.draws import chosen, uniform


@dataclass(frozen=True, kw_only=True, slots=True)
class Moves:
    """Where N views look: a crop, then mirroring, then quarter turns.

    Attributes:
        width_N: Of the crop, as a share of the image's side; also height.
        height_N: See width.
        centre_x_N: Of the crop, from -1 (left edge of the image) to 1; also y, downwards.
        centre_y_N: See x.
        angle_N: Rotation of the crop about its centre, in radians.
        slope_N: Horizontal shear: pixels to the side for each pixel down.
        mirror_x_N: -1 where left and right change places, else 1.
        mirror_y_N: -1 where top and bottom change places, else 1.
        turns_N: Quarter turns as `torch.rot90` counts them, 0 to 3.
    """

    width_N: Tensor
    height_N: Tensor
    centre_x_N: Tensor
    centre_y_N: Tensor
    angle_N: Tensor
    slope_N: Tensor
    mirror_x_N: Tensor
    mirror_y_N: Tensor
    turns_N: Tensor

    def __getitem__(self, rows: slice) -> Self:
        """The moves of some of the views."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def crops(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Centre x and y, width and height, these negative where the view is mirrored."""
        width, height = self.width_N * self.mirror_x_N, self.height_N * self.mirror_y_N
        return self.centre_x_N, self.centre_y_N, width, height

    def maps(self) -> Tensor:
        """Affine maps from the view's to the image's coordinates, both in [-1, 1]; (N, 2, 3)."""
        cos, sin = self.angle_N.cos(), self.angle_N.sin()
        _, _, width, height = self.crops()
        across = torch.stack([cos * width, sin * width], dim=-1)
        slope = self.slope_N
        down = torch.stack([(cos * slope - sin) * height, (sin * slope + cos) * height], dim=-1)
        for turn in range(1, 4):
            turned = (self.turns_N >= turn)[:, None]
            across, down = torch.where(turned, down, across), torch.where(turned, -across, down)
        centre = torch.stack([self.centre_x_N, self.centre_y_N], dim=-1)
        return torch.stack([across, down, centre], dim=-1)


def draw_moves(count: int, config: AugmentationConfig, generator: torch.Generator) -> Moves:
    """Random moves of `count` views, on the generator's device."""
    area = uniform(count, *config.crop_area, generator)
    log_ratio = math.log(config.crop_ratio)
    ratio = uniform(count, -log_ratio, log_ratio, generator).exp()
    # A crop of the wanted area and ratio may not fit; then its longer side is the image's.
    limit = max(1.0, math.sqrt(config.crop_area[1]))
    width = (area * ratio).sqrt().clamp(max=limit)
    height = (area / ratio).sqrt().clamp(max=limit)
    quarters = 4 if config.quarter_turns else 1
    return Moves(
        width_N=width,
        height_N=height,
        centre_x_N=(1 - width) * uniform(count, -1, 1, generator),
        centre_y_N=(1 - height) * uniform(count, -1, 1, generator),
        angle_N=uniform(count, -config.rotation, config.rotation, generator).deg2rad(),
        slope_N=uniform(count, -config.shear, config.shear, generator).deg2rad().tan(),
        mirror_x_N=torch.where(chosen(count, config.flip, generator), -1.0, 1.0),
        mirror_y_N=torch.where(chosen(count, config.vertical_flip, generator), -1.0, 1.0),
        turns_N=uniform(count, 0, quarters, generator).long(),
    )
