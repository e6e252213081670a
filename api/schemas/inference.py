"""Embeddings and predictions as JSON."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.strict import StrictBody
from api.schemas.text import Text
from core.images.formats import SPOKEN

# A red 8×8 PNG, so that the examples work as they stand.
SAMPLE_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFElEQVR4nGM8ISfHgA0wYRUdtBIA0MoBFD5jqJkA"
    "AAAASUVORK5CYII="
)


class InferenceIn(StrictBody):
    """Images for a model, as base64."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "production", "images": [SAMPLE_PNG]}]},
    )

    model: Text = Field(min_length=1, max_length=200, description="Id or alias.")
    images: list[str] = Field(
        min_length=1, description=f"{SPOKEN} files in base64 (data: URIs too)."
    )
    top_k: int = Field(default=5, ge=1, le=1000, description="Most labels for each image.")


class ItemErrorOut(BaseModel):
    """Why there is no answer for one image."""

    code: str
    detail: str


class EmbeddingOut(BaseModel):
    """The vector of one image, or why there is none."""

    index: int
    name: str | None = None
    embedding: list[float] | None = Field(default=None, description="L2-normalised.")
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
    label: str | None = Field(default=None, description="The likeliest class.")
    predictions: list[ScoredLabel] | None = Field(
        default=None, description="The top_k classes, likeliest first."
    )
    error: ItemErrorOut | None = None


class PredictOut(BaseModel):
    """Predictions in the order of the images."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: UUID
    items: list[PredictionOut]
