"""Embeddings and predictions as JSON."""

from __future__ import annotations

from typing import Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.schemas.strict import StrictBody
from api.schemas.text import Text
from core.images.formats import SPOKEN

# A red 8×8 PNG, so that the examples work as they stand.
SAMPLE_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFElEQVR4nGM8ISfHgA0wYRUdtBIA0MoBFD5jqJkA"
    "AAAASUVORK5CYII="
)


class ImagesIn(StrictBody):
    """Images for a model: base64, or ids of images of a dataset."""

    model: Text = Field(min_length=1, max_length=200, description="Id or alias.")
    images: list[str] | None = Field(
        default=None, min_length=1, description=f"{SPOKEN} files in base64 (data: URIs too)."
    )
    image_ids: list[UUID] | None = Field(
        default=None,
        min_length=1,
        description="Images of datasets, in place of `images`; the key needs the scope read.",
    )

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.images is None) == (self.image_ids is None):
            found = "neither" if self.images is None else "both"
            raise ValueError(f"images, image_ids: found {found}; give one of the two")
        return self


class EmbedIn(ImagesIn):
    """Images whose vectors are wanted."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "production", "images": [SAMPLE_PNG]}]},
    )

    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="Numbers, or base64 of little-endian float32."
    )


class PredictIn(ImagesIn):
    """Images whose classes are wanted."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "production", "images": [SAMPLE_PNG]}]},
    )

    top_k: int = Field(default=5, ge=1, le=1000, description="Most labels for each image.")
    min_confidence: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="An image whose likeliest class is less probable is `unsure`, without a label.",
    )


class ItemErrorOut(BaseModel):
    """Why there is no answer for one image."""

    code: str
    detail: str


class EmbeddingOut(BaseModel):
    """The vector of one image, or why there is none."""

    index: int
    name: str | None = None
    image_id: UUID | None = None
    embedding: list[float] | str | None = Field(
        default=None, description="L2-normalised; as the encoding_format says."
    )
    error: ItemErrorOut | None = None


class EmbedOut(BaseModel):
    """Vectors in the order of the images."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: UUID
    dimension: int
    items: list[EmbeddingOut]


class ScoredLabel(BaseModel):
    """A class and its probability."""

    label: str
    probability: float


class PredictionOut(BaseModel):
    """The likeliest classes of one image, or why there are none."""

    index: int
    name: str | None = None
    image_id: UUID | None = None
    label: str | None = Field(default=None, description="The likeliest class, unless unsure.")
    unsure: bool = Field(
        default=False, description="Whether its probability is below min_confidence."
    )
    predictions: list[ScoredLabel] | None = Field(
        default=None, description="The top_k classes, likeliest first."
    )
    error: ItemErrorOut | None = None


class PredictOut(BaseModel):
    """Predictions in the order of the images."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: UUID
    items: list[PredictionOut]
