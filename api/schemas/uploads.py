"""Uploads and their reports as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from api.schemas.strict import StrictBody
from api.schemas.text import Text

MAX_HASHES = 10_000
MAX_NAMES = 100  # of one image
Sha256 = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{64}$"), Field(examples=["9f86d081884c7d65" * 4])
]
FileName = Annotated[Text, StringConstraints(min_length=1, max_length=1024)]


class HashesIn(StrictBody):
    """Images by the SHA-256 of their bytes."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"sha256": ["9f86d081884c7d65" * 4]}]}
    )

    sha256: list[Sha256] = Field(
        min_length=1, max_length=MAX_HASHES, description="In lower-case hexadecimal digits."
    )
    names: dict[Sha256, Annotated[list[FileName], Field(max_length=MAX_NAMES)]] = Field(
        default_factory=dict,
        description="File names by sum: images that are there can be found under them from now on.",
    )

    @model_validator(mode="after")
    def _names_of_those_asked(self) -> HashesIn:
        if strange := self.names.keys() - set(self.sha256):
            raise ValueError(f"names: {min(strange)} is not among sha256")
        return self


class MissingOut(BaseModel):
    """What has to be sent."""

    missing: list[Sha256] = Field(description="Those that the dataset has not, in the order asked.")


class ReportLineOut(BaseModel):
    """What became of one file."""

    model_config = ConfigDict(from_attributes=True)

    file: str
    outcome: Literal["added", "duplicate", "rejected", "unlabelled"]
    code: str | None = Field(description="Why it was not added, for machines.")
    detail: str | None = Field(description="What was found and what is allowed.")
    image_id: UUID | None = Field(description="The image, or the one that a duplicate is.")


class NumberedLineOut(ReportLineOut):
    """What became of one file, and which it was."""

    number: int = Field(
        description="Its place in the upload, from 0; `unlabelled` lines come after all files."
    )


class UploadOut(BaseModel):
    """What became of the files of an upload."""

    model_config = ConfigDict(from_attributes=True)

    import_id: UUID = Field(description="The whole report: GET /datasets/{id}/imports/{import_id}.")
    added: int
    duplicates: int
    rejected: int
    labelled: int = Field(description="Images that have the class of their folder as label now.")
    lines: list[ReportLineOut] = Field(
        description="One for every file that was not added; with `labels=folders` also one for "
        "every image in a folder that did not get its label; as far as there is room."
    )
    more_lines: int = Field(description="How many more there are in the whole report.")


class ImportOut(BaseModel):
    """One upload."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    dataset_id: UUID
    state: Literal["queued", "running", "complete", "failed", "interrupted"]
    added: int
    duplicates: int
    rejected: int
    labelled: int = Field(description="With `labels: folders`: images with their folder's class.")
    unlabelled: int = Field(description="Images in a folder that did not get its class.")
    error_code: str | None = Field(description="Why it ended before its last file.")
    error_detail: str | None
    created_at: datetime
    updated_at: datetime


class ImportPage(BaseModel):
    """A page of uploads."""

    items: list[ImportOut]
    next_cursor: str | None


class ImportDetailOut(ImportOut):
    """One upload with a page of its report."""

    lines: list[NumberedLineOut]
    next_after: int | None = Field(description="`after` of the next page; null on the last.")
