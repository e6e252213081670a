"""Colour of each sample: one matrix and one offset; and solarisation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from core.learning.augmentations.config import AugmentationConfig
from core.learning.augmentations.draws import chosen, uniform

LUMA = (0.299, 0.587, 0.114)
# NTSC's YIQ: hue is an angle in the IQ plane, so a change of hue is a matrix.
RGB_TO_YIQ = (LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


@dataclass(frozen=True, slots=True)
class Colours:
    """What happens to the colours of N views.

    Attributes:
        matrix_NCC: From a pixel's values to its new ones.
        lift_N: Share of the view's mean luma that is added: what a weaker contrast mixes in.
    """

    matrix_NCC: Tensor
    lift_N: Tensor

    def __getitem__(self, rows: slice) -> Self:
        """The colours of some of the views."""
        return type(self)(self.matrix_NCC[rows], self.lift_N[rows])


def draw_colours(
    count: int, channels: int, config: AugmentationConfig, generator: torch.Generator
) -> Colours | None:
    """Random brightness, contrast, saturation, hue and grey; none where all stay as they are."""
    if config.jitter == 0 and config.grey == 0:
        return None
    jittered = chosen(count, config.jitter, generator)

    def factors(strength: float) -> Tensor:
        drawn = uniform(count, max(0.0, 1 - strength), 1 + strength, generator)
        return torch.where(jittered, drawn, 1.0)

    brightness, contrast = factors(config.brightness), factors(config.contrast)
    device = generator.device
    matrix_NCC = (brightness * contrast)[:, None, None] * torch.eye(channels, device=device)
    if channels == 3:
        turn = uniform(count, -config.hue, config.hue, generator) * jittered
        saturation = factors(config.saturation)
        saturation = saturation.masked_fill(chosen(count, config.grey, generator), 0.0)
        luma_C = torch.tensor(LUMA, device=device)
        matrix_NCC = hue_matrices(turn) @ _saturation_matrices(saturation, luma_C) @ matrix_NCC
    # Hue and saturation leave greys as they are, so the lift passes through them unchanged.
    return Colours(matrix_NCC, (1 - contrast) * brightness)


def recolour(levels_NCHW: Tensor, colours: Colours | None, *, out: Tensor) -> None:
    """Levels from 0 to 255 to recoloured values in [0, 1]: one product for all operations."""
    if colours is None:
        torch.div(levels_NCHW, 255, out=out)
    else:
        luma_C = levels_NCHW.new_tensor(LUMA if levels_NCHW.shape[1] == 3 else (1.0,))
        pixels_NCP = levels_NCHW.flatten(2)
        offset_N = pixels_NCP.mean(dim=2) @ luma_C * colours.lift_N / 255
        matrix_NCC = colours.matrix_NCC / 255
        torch.baddbmm(offset_N[:, None, None], matrix_NCC, pixels_NCP, out=out.flatten(2))
    out.clamp_(0, 1)


def solarize(views_NCHW: Tensor, selected_N: Tensor, threshold: float) -> None:
    """Invert, in place, every value of the selected views that reaches the threshold."""
    rows = selected_N.nonzero().flatten()
    if len(rows):
        values = views_NCHW[rows]
        views_NCHW[rows] = torch.where(values >= threshold, 1 - values, values)


def _saturation_matrices(saturation_N: Tensor, luma_C: Tensor) -> Tensor:
    """Mixtures of the colour and its luma."""
    grey_CC = luma_C.expand(3, 3)
    identity_CC = torch.eye(3, device=luma_C.device)
    return grey_CC + saturation_N[:, None, None] * (identity_CC - grey_CC)


def hue_matrices(turn_N: Tensor) -> Tensor:
    """Rotations of the IQ plane, written in RGB; `turn_N` is a share of the circle."""
    to_yiq = turn_N.new_tensor(RGB_TO_YIQ)
    # The published coefficients are rounded; rows of chroma that sum to zero keep greys grey.
    to_yiq[1:] -= to_yiq[1:].mean(dim=1, keepdim=True)
    cos, sin = (turn_N * math.tau).cos(), (turn_N * math.tau).sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    rotation = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=-1)
    matrix_N33: Tensor = torch.linalg.inv(to_yiq) @ rotation.view(-1, 3, 3) @ to_yiq
    return matrix_N33
