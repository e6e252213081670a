"""Uploads straight to the object store, and imports from buckets, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.schemas.strict import StrictBody
from api.schemas.text import Text
from api.schemas.uploads import FileName, Sha256
from core.storage.s3.multipart import MOST_PARTS

FolderLabels = Annotated[
    Literal["folders"] | None,
    Field(description="`folders`: the innermost folder of each file is its image's label."),
]
ETag = Annotated[str, StringConstraints(pattern=r'^"?[A-Za-z0-9_+/=-]{1,128}"?$')]


class DirectUploadIn(StrictBody):
    """An archive that will be sent to the object store."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"file": "images.zip", "bytes": 73_400_320, "media_type": "application/zip"}
            ]
        },
    )

    file: FileName
    bytes: int = Field(gt=0, le=2**43, description="Exactly as many as will come.")
    media_type: Literal["application/zip", "application/x-tar", "application/gzip"] = Field(
        description="A tar archive may be packed with gzip, bzip2 or xz."
    )
    sha256: Sha256 | None = Field(
        default=None, description="Of the archive; another one is then not imported."
    )


class DirectUploadOut(BaseModel):
    """Where the parts of the archive go."""

    id: UUID
    dataset_id: UUID
    part_bytes: int = Field(description="Of each part; the last one has the rest.")
    urls: list[str] = Field(
        description="One for each part, in order: PUT the bytes there, without other headers, and "
        "keep the ETag of the answer. Whoever has a URL can write that part."
    )
    expires_at: datetime = Field(description="What is not completed by then is removed.")


class PartsIn(StrictBody):
    """The parts have arrived."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"etags": ["3349dc700140d7f86a078484278075a9"]}]},
    )

    etags: list[ETag] = Field(
        min_length=1,
        max_length=MOST_PARTS,
        description="What the object store answered to each part, in their order.",
    )
    labels: FolderLabels = None


class BucketSource(StrictBody):
    """What lies in a bucket that the server may read."""

    bucket: Annotated[Text, StringConstraints(min_length=1, max_length=63)] = Field(
        description="One of FEWLABELS_IMPORT_BUCKETS."
    )
    prefix: Annotated[Text, StringConstraints(max_length=1024)] = Field(
        default="",
        description="Only objects whose names begin so; what follows is the file's name.",
    )


class ImportIn(StrictBody):
    """An import of what lies in an object store already."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"source": {"bucket": "camera-3", "prefix": "2026/05/"}}]},
    )

    source: BucketSource
    labels: FolderLabels = None
