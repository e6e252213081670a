"""What may be asked of the picture of augmentations."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from api.schemas.stages import Auto, Preset
from api.schemas.strict import StrictBody


class PreviewQuery(StrictBody):
    """How many images and views, and which changes."""

    n: int = Field(
        default=8,
        ge=1,
        le=32,
        description="How many images, evenly spread over the training images.",
    )
    views: int = Field(default=4, ge=1, le=16, description="How many views of each image.")
    augmentation: Preset | Auto = Field(
        default="auto", description="The preset; `auto` is what a pretrain job would take."
    )
    strength: float = Field(
        default=1.0,
        ge=0,
        le=2,
        allow_inf_nan=False,
        description="The job's `augmentation_strength`: 1 as in the preset, 0 next to none.",
    )
    image_size: Annotated[int, Field(ge=8, le=512)] | Auto = Field(
        default="auto",
        description="Side of the network's input in pixels; `auto` is what a pretrain job would "
        "take.",
    )
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="The same seed shows the same views again."
    )
