"""Models and aliases as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.strict import StrictBody


class ModelOut(BaseModel):
    """A model and where it comes from."""

    model_config = ConfigDict(from_attributes=True, protected_namespaces=())

    id: UUID
    kind: str = Field(description="`encoder` answers /embed, `classifier` also /predict.")
    job_id: UUID
    parent_id: UUID | None = Field(description="The model it was made from.")
    manifest: dict[str, Any] = Field(
        description="Architecture, preprocessing, classes, metrics with intervals, the data "
        "snapshot's hash, code version, and the sha256 of every file. `metrics` of a classifier "
        "has accuracy, confusion matrix and the figures of each class by split (or from "
        "cross-validation), `baseline` where it was asked for, and after distillation `teacher`, "
        "`student` and their `agreement`; an encoder's has what was probed in training. "
        "`projection` says that the first layers after the encoder were kept. `onnx` says whether "
        "there is a `model.onnx`, or the reason why not; `runtime` what the model is served by, "
        "with the milliseconds and the differences of all that were tried; where `runtime.predict` "
        "is `onnxruntime-int8`, /predict is answered in eight bits and vectors are not."
    )
    created_at: datetime


class ModelPage(BaseModel):
    """A page of models."""

    items: list[ModelOut]
    next_cursor: str | None


class AliasIn(StrictBody):
    """Where an alias shall point."""

    model_config = ConfigDict(
        protected_namespaces=(),
        json_schema_extra={"examples": [{"model_id": "3f2c8a52-6f0e-4a3e-9d8e-1f6f5b0c7d11"}]},
    )

    model_id: UUID


class AliasOut(BaseModel):
    """A stable name for a model."""

    model_config = ConfigDict(from_attributes=True, protected_namespaces=())

    name: str
    model_id: UUID
    previous_model_id: UUID | None = Field(description="Where to go back to.")
    updated_at: datetime
