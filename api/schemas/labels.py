"""Labels, given splits and their history as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from api.schemas.datasets import Name
from api.schemas.strict import StrictBody
from api.schemas.text import Text

ClassName = Name
Sha256 = Annotated[
    str, StringConstraints(strip_whitespace=True, to_lower=True, pattern="^[0-9a-fA-F]{64}$")
]
Split = Literal["train", "validation", "test"]
REFERENCES = ("image_id", "sha256", "file")
VALUES = ("label", "split")


class LabelIn(BaseModel):
    """The label of an image, its split, or both.

    The image is named by `file`, `sha256` or `image_id`; where several are given, all must name it.
    """

    # Not a StrictBody: there may be a hundred thousand of them in a request.
    model_config = ConfigDict(extra="forbid")

    file: Text | None = Field(default=None, min_length=1, max_length=1024, examples=["bolt-17.png"])
    sha256: Sha256 | None = Field(default=None, description="Of the image file's bytes.")
    image_id: UUID | None = None
    label: ClassName | None = Field(
        default=None, description="null takes the label away", examples=["bolt"]
    )
    split: Split | None = Field(
        default=None,
        description="In place of the split by content: `test` images are trained on by no stage. "
        "null goes back to the split by content.",
    )

    @model_validator(mode="after")
    def _whole(self) -> LabelIn:
        if all(getattr(self, name) is None for name in REFERENCES):
            raise ValueError("give at least one of file, sha256 and image_id")
        if not self.model_fields_set.intersection(VALUES):
            raise ValueError("give label, split or both")
        return self


class LabelsIn(StrictBody):
    """Labels; all of them are set, or none, unless `partial=true`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "labels": [
                        {"file": "a.png", "label": "bolt"},
                        {"file": "b.png", "label": "nut"},
                    ]
                }
            ]
        },
    )

    labels: list[LabelIn] = Field(min_length=1)


class LineProblemOut(BaseModel):
    """A line that was left out, and why."""

    model_config = ConfigDict(from_attributes=True)

    line: int = Field(description="Of CSV the line of the body, of JSON the place in the list.")
    detail: str


class LabelsOut(BaseModel):
    """What was set."""

    model_config = ConfigDict(from_attributes=True)

    labelled: int = Field(description="Images that have the label now that was given.")
    removed: int = Field(description="Images that have no label now, as was asked.")
    splits: int = Field(description="Images whose split was given or taken back.")
    rejected: int = Field(description="Lines that were left out; 0 without `partial=true`.")
    problems: list[LineProblemOut] = Field(description="Why; the first 10,000 of them.")
    class_names: list[str] = Field(description="All classes of the dataset now.")


class LabelChangeOut(BaseModel):
    """A change of a label; null is no label."""

    image_id: UUID
    from_label: str | None
    to_label: str | None
    key_id: UUID | None = Field(description="The API key; null without authentication.")
    key_name: str = Field(description="Its name then; `local` without authentication.")
    changed_at: datetime


class LabelHistoryPage(BaseModel):
    """A page of changes."""

    items: list[LabelChangeOut]
    next_cursor: str | None
