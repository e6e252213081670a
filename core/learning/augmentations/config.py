"""Strengths of the random operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

MILDEST_CROP = 0.75  # smallest area at strength 0, where the preset crops more than that
MAX_STRENGTH = 2.0
PROBABILITIES = ("flip", "vertical_flip", "jitter", "grey", "blur", "solarize")
SIZES = ("rotation", "shear", "brightness", "contrast", "saturation", "hue")


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
        vertical_flip: Probability of a vertical flip.
        quarter_turns: Whether to turn by 0, 90, 180 or 270 degrees, each as likely.
        brightness: Factor in 1 +- this; also contrast and saturation.
        contrast: See brightness.
        saturation: See brightness.
        hue: Largest turn of the hue either way, as a share of the circle.
        jitter: Probability of the four above.
        grey: Probability of losing all colour.
        blur: Probability of a Gaussian blur.
        blur_sigma: Smallest and largest standard deviation of the blur, in pixels.
        solarize: Probability of inverting every value that reaches the threshold.
        solarize_threshold: Of values in [0, 1].
    """

    crop_area: tuple[float, float] = (1.0, 1.0)
    crop_ratio: float = 1.0
    rotation: float = 0.0
    shear: float = 0.0
    flip: float = 0.0
    vertical_flip: float = 0.0
    quarter_turns: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    solarize_threshold: float = 0.5

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
        for name in (*PROBABILITIES, "solarize_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: found {getattr(self, name)}, allowed is 0 to 1")
        for name in SIZES:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: found {getattr(self, name)}, at least 0 is needed")

    @property
    def tilts(self) -> bool:
        """Whether views may be rotated or sheared, and not only cut out, mirrored and turned."""
        return self.rotation > 0 or self.shear > 0

    def scaled(self, strength: float) -> Self:
        """The same operations, weaker or stronger.

        Flips and quarter turns stay: an image has such a symmetry or it has not. Everything
        else is proportional to the strength, but for three things. The smallest crop grows
        up to 0.75 of the image below one and is divided by the strength above it. The
        probabilities of grey, blur and solarize do not grow above one. Hue stops at half of
        the circle, which is all of it.

        Args:
            strength: 1 leaves all as it is; 0 leaves flips, quarter turns and the mildest crop.

        Raises:
            ValueError: The strength is not in 0 to 2.
        """
        if not 0 <= strength <= MAX_STRENGTH:
            raise ValueError(f"strength: found {strength}, allowed is 0 to {MAX_STRENGTH:g}")
        share = min(1.0, strength)
        smallest_sigma, largest_sigma = self.blur_sigma
        return replace(
            self,
            crop_area=_scaled_crop(self.crop_area, strength),
            crop_ratio=self.crop_ratio**strength,
            rotation=self.rotation * strength,
            shear=self.shear * strength,
            brightness=self.brightness * strength,
            contrast=self.contrast * strength,
            saturation=self.saturation * strength,
            hue=min(0.5, self.hue * strength),
            grey=self.grey * share,
            blur=self.blur * share,
            blur_sigma=(smallest_sigma, max(smallest_sigma, largest_sigma * strength)),
            solarize=self.solarize * share,
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


def _scaled_crop(area: tuple[float, float], strength: float) -> tuple[float, float]:
    smallest, largest = area
    if smallest < 1 and strength > 1:
        smallest /= strength
    elif smallest < MILDEST_CROP:
        smallest = strength * smallest + (1 - strength) * MILDEST_CROP
    zoomed_out = 1 + (largest - 1) * strength if largest > 1 else largest
    return min(smallest, zoomed_out), zoomed_out
