"""Random views of images, vectorised over the batch; one generator makes all decisions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from core.learning.preprocessing import unit_range

LUMA = (0.299, 0.587, 0.114)
# NTSC's YIQ: hue is an angle in the IQ plane, so a change of hue is a matrix.
RGB_TO_YIQ = (LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentationConfig:
    """Strengths of each operation; the defaults change nothing.

    Attributes:
        crop_area: Smallest and largest area of the crop, as a share of the image; a share above
            one zooms out, the border is repeated.
        crop_ratio: Largest ratio of the crop's sides.
        rotation: Largest rotation either way, in degrees.
        shear: Largest horizontal shear either way, in degrees.
        flip: Probability of a horizontal flip.
        brightness: Factor in 1 +- this; also contrast and saturation.
        contrast: See brightness.
        saturation: See brightness.
        hue: Largest turn of the hue either way, as a share of the circle.
        jitter: Probability of the four above.
        grey: Probability of losing all colour.
        blur: Probability of a Gaussian blur.
        blur_sigma: Smallest and largest standard deviation of the blur, in pixels.
    """

    crop_area: tuple[float, float] = (1.0, 1.0)
    crop_ratio: float = 1.0
    rotation: float = 0.0
    shear: float = 0.0
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        if not 0 < self.crop_area[0] <= self.crop_area[1]:
            raise ValueError(
                f"crop_area: found {self.crop_area}, 0 < smallest <= largest is needed"
            )
        if self.crop_ratio < 1:
            raise ValueError(f"crop_ratio: found {self.crop_ratio}, at least 1 is needed")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(
                f"blur_sigma: found {self.blur_sigma}, 0 < smallest <= largest is needed"
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`, also after a trip through JSON."""
        pairs = {
            name: tuple(values[name]) for name in ("crop_area", "blur_sigma") if name in values
        }
        return cls(**{**values, **pairs})


PRESETS: dict[str, AugmentationConfig] = {
    # SimCLR on ImageNet (arXiv 2002.05709, appendix A).
    "photo": AugmentationConfig(
        crop_area=(0.08, 1.0),
        crop_ratio=4 / 3,
        flip=0.5,
        brightness=0.8,
        contrast=0.8,
        saturation=0.8,
        hue=0.2,
        jitter=0.8,
        grey=0.2,
        blur=0.5,
    ),
    # As used on CIFAR: half the colour, no blur, larger crops.
    "small": AugmentationConfig(
        crop_area=(0.2, 1.0),
        crop_ratio=4 / 3,
        flip=0.5,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        jitter=0.8,
        grey=0.2,
    ),
    "greyscale": AugmentationConfig(
        crop_area=(0.2, 1.0),
        crop_ratio=4 / 3,
        flip=0.5,
        brightness=0.4,
        contrast=0.4,
        jitter=0.8,
    ),
    # Writing: mirrored letters are other letters, and a part of a letter may be another one too.
    "document": AugmentationConfig(
        crop_area=(0.5, 1.2),
        crop_ratio=4 / 3,
        rotation=15.0,
        shear=15.0,
        brightness=0.4,
        contrast=0.4,
        jitter=0.8,
    ),
}


def augment(
    images_BHWC: Tensor, *, config: AugmentationConfig, views: int, generator: torch.Generator
) -> Tensor:
    """Independent random views of each image: crop, rotation, shear, flip, colour, blur.

    Args:
        images_BHWC: uint8 canvases, square, 1 or 3 channels.
        config: What to do and how strongly.
        views: Views of each image.
        generator: On the device of the images.

    Returns:
        float32 in [0, 1], (views, B, C, S, S).
    """
    # bfloat16 has fewer levels than the images: mixed precision begins after this.
    with torch.no_grad(), torch.autocast(images_BHWC.device.type, enabled=False):
        images_NCHW = unit_range(images_BHWC).repeat(views, 1, 1, 1)
        images_NCHW = _warp(images_NCHW, config, generator)
        images_NCHW = _recolour(images_NCHW, config, generator)
        images_NCHW = _blur(images_NCHW, config, generator)
    return images_NCHW.view(views, len(images_BHWC), *images_NCHW.shape[1:])


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, device=generator.device) * (high - low) + low


def _chosen(count: int, probability: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, device=generator.device) < probability


def _warp(images_NCHW: Tensor, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Crop, rotation, shear and flip: one affine map a sample, one bilinear sampling."""
    moves = (config.crop_area, config.crop_ratio, config.rotation, config.shear, config.flip)
    if moves == ((1.0, 1.0), 1.0, 0.0, 0.0, 0.0):
        return images_NCHW
    maps_N23 = _affine_maps(len(images_NCHW), config, generator)
    grid_NHW2 = functional.affine_grid(maps_N23, list(images_NCHW.shape), align_corners=False)
    return functional.grid_sample(
        images_NCHW, grid_NHW2, padding_mode="border", align_corners=False
    )


def _affine_maps(count: int, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """From output to input coordinates, both in [-1, 1]."""
    area = _uniform(count, *config.crop_area, generator)
    log_ratio = math.log(config.crop_ratio)
    ratio = _uniform(count, -log_ratio, log_ratio, generator).exp()
    # A crop of the wanted area and ratio may not fit; then its longer side is the image's.
    limit = max(1.0, math.sqrt(config.crop_area[1]))
    width = (area * ratio).sqrt().clamp(max=limit)
    height = (area / ratio).sqrt().clamp(max=limit)
    centre_x = (1 - width) * _uniform(count, -1, 1, generator)
    centre_y = (1 - height) * _uniform(count, -1, 1, generator)
    angle = _uniform(count, -config.rotation, config.rotation, generator).deg2rad()
    slope = _uniform(count, -config.shear, config.shear, generator).deg2rad().tan()
    mirror = torch.where(_chosen(count, config.flip, generator), -1.0, 1.0)
    cos, sin = angle.cos(), angle.sin()
    row_x = [cos * width * mirror, (cos * slope - sin) * height, centre_x]
    row_y = [sin * width * mirror, (sin * slope + cos) * height, centre_y]
    return torch.stack([torch.stack(row_x, dim=-1), torch.stack(row_y, dim=-1)], dim=1)


def _recolour(
    images_NCHW: Tensor, config: AugmentationConfig, generator: torch.Generator
) -> Tensor:
    """Brightness, contrast, saturation, hue and grey: one matrix and one offset a sample."""
    if config.jitter == 0 and config.grey == 0:
        return images_NCHW
    count, channels = images_NCHW.shape[:2]
    luma_C = images_NCHW.new_tensor(LUMA if channels == 3 else (1.0,))
    jittered = _chosen(count, config.jitter, generator)

    def factors(strength: float) -> Tensor:
        drawn = _uniform(count, max(0.0, 1 - strength), 1 + strength, generator)
        return torch.where(jittered, drawn, 1.0)

    brightness, contrast = factors(config.brightness), factors(config.contrast)
    mean_N = images_NCHW.mean(dim=(2, 3)) @ luma_C
    # All that follows leaves greys as they are, so the offset passes through unchanged.
    offset_N = (1 - contrast) * brightness * mean_N
    matrix_NCC = (brightness * contrast)[:, None, None] * torch.eye(channels, device=luma_C.device)
    if channels == 3:
        turn = _uniform(count, -config.hue, config.hue, generator) * jittered
        saturation = factors(config.saturation)
        saturation = saturation.masked_fill(_chosen(count, config.grey, generator), 0.0)
        matrix_NCC = _hue_matrices(turn) @ _saturation_matrices(saturation, luma_C) @ matrix_NCC
    recoloured = torch.einsum("ncd,ndhw->nchw", matrix_NCC, images_NCHW)
    return (recoloured + offset_N[:, None, None, None]).clamp(0, 1)


def _saturation_matrices(saturation_N: Tensor, luma_C: Tensor) -> Tensor:
    """Mixtures of the colour and its luma."""
    grey_CC = luma_C.expand(3, 3)
    identity_CC = torch.eye(3, device=luma_C.device)
    return grey_CC + saturation_N[:, None, None] * (identity_CC - grey_CC)


def _hue_matrices(turn_N: Tensor) -> Tensor:
    """Rotations of the IQ plane, written in RGB; `turn_N` is a share of the circle."""
    to_yiq = turn_N.new_tensor(RGB_TO_YIQ)
    # The published coefficients are rounded; rows of chroma that sum to zero keep greys grey.
    to_yiq[1:] -= to_yiq[1:].mean(dim=1, keepdim=True)
    cos, sin = (turn_N * math.tau).cos(), (turn_N * math.tau).sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    rotation = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=-1)
    matrix_N33: Tensor = torch.linalg.inv(to_yiq) @ rotation.view(-1, 3, 3) @ to_yiq
    return matrix_N33


def _blur(images_NCHW: Tensor, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Separable Gaussian with its own width for every selected sample: two matrix products."""
    if config.blur == 0:
        return images_NCHW
    count, _, size, _ = images_NCHW.shape
    selected = _chosen(count, config.blur, generator)
    sigma_N = _uniform(count, *config.blur_sigma, generator)[selected]
    position = torch.arange(size, device=images_NCHW.device, dtype=torch.float32)
    distance_SS = position[:, None] - position
    # Rows sum to one, also at the border, where the part outside is left out.
    kernel_NSS = torch.softmax(-0.5 * (distance_SS / sigma_N[:, None, None]) ** 2, dim=-1)
    kernel_N1SS = kernel_NSS[:, None]
    blurred = images_NCHW.clone()
    blurred[selected] = kernel_N1SS @ images_NCHW[selected] @ kernel_N1SS.transpose(-1, -2)
    return blurred
