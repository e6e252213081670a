"""Searches, evaluations and reports as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.schemas.inference import SAMPLE_PNG
from api.schemas.jobs import SAMPLE_ID
from api.schemas.placement import Placement
from api.schemas.strict import StrictBody
from api.schemas.text import Text

Number = Annotated[float, Field(allow_inf_nan=False)]


class SearchIn(StrictBody):
    """What to be near to, and where to look."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "production", "image": SAMPLE_PNG, "dataset_id": SAMPLE_ID, "limit": 5}
            ]
        },
    )

    model: Text = Field(min_length=1, max_length=200, description="Id or alias.")
    image: str | None = Field(default=None, description="A file in base64 (a data: URI too).")
    image_id: UUID | None = Field(
        default=None, description="An image with a stored vector; it is not among its neighbours."
    )
    vector: list[Number] | None = Field(
        default=None, min_length=1, max_length=16_000, description="For instance of /embed."
    )
    dataset_id: UUID | None = Field(default=None, description="Only images of this dataset.")
    labels: list[Text] = Field(
        default=[], max_length=1000, description="Only images with one of these labels."
    )
    limit: int = Field(default=10, ge=1, le=1000, description="Most neighbours.")
    method: Literal["auto", "exact", "hnsw"] = Field(
        default="auto",
        description="`exact` looks at every vector, `hnsw` uses the model's index; `auto` uses "
        "the index where there is one, and looks at every vector where that finds too few.",
    )
    ef_search: int = Field(
        default=100, ge=10, le=1000, description="How far the index is searched."
    )

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        given = [n for n in ("image", "image_id", "vector") if getattr(self, n) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"image, image_id or vector: exactly one is needed, found {found}")
        return self


class NeighbourOut(BaseModel):
    """An image that is near."""

    image_id: UUID
    dataset_id: UUID
    distance: float = Field(description="Cosine distance, 0 to 2.")
    name: str | None = Field(description="A name that it was uploaded under.")
    label: str | None


class SearchOut(BaseModel):
    """The nearest images, nearest first."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: UUID
    method: Literal["exact", "hnsw"] = Field(description="How they were found.")
    items: list[NeighbourOut]


class EvaluateIn(Placement):
    """What to evaluate on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"dataset_id": SAMPLE_ID}]})

    dataset_id: UUID
    split: Literal["all", "train", "validation", "test"] = Field(
        default="all", description="Only labelled images of this split."
    )


class ReportOut(BaseModel):
    """What a job found out about the model."""

    model_config = ConfigDict(from_attributes=True, protected_namespaces=())

    job_id: UUID
    model_id: UUID
    dataset_id: UUID | None
    stage: Literal["embed", "evaluate"]
    body: dict[str, Any]
    created_at: datetime
