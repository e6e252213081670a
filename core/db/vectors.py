"""Vectors of images, and what jobs that make no model found out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import UserDefinedType

from core.db.table import Json, Table, creation_time

# pgvector: an HNSW index takes so many dimensions of half precision.
MOST_INDEXED_DIMENSIONS = 4000
_SEND_HEADER_BYTES = 4  # of halfvec_send: the dimension and an unused field


class HalfVector(UserDefinedType[str]):
    """pgvector's `halfvec`, without a dimension: each model has its own."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's name in SQL."""
        return "halfvec"


ischema_names["halfvec"] = HalfVector  # so that a migration's comparison knows the column


def as_text(vector: NDArray[np.floating[Any]] | Sequence[float]) -> str:
    """A vector as pgvector reads it; six digits are more than half precision keeps."""
    return "[" + ",".join([f"{value:.6g}" for value in vector]) + "]"


def from_bytes(sent: bytes) -> NDArray[np.float16]:
    """The vector in what `halfvec_send` gives."""
    return np.frombuffer(sent, dtype=">f2", offset=_SEND_HEADER_BYTES).astype(np.float16)


class Embedding(Table):
    """The unit vector that a model gives an image; it goes with either of them."""

    __tablename__ = "embeddings"
    __table_args__ = (
        # Both of one project: nobody's images are found with somebody else's model.
        ForeignKeyConstraint(
            ["project_id", "model_id"], ["models.project_id", "models.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["project_id", "dataset_id"], ["datasets.project_id", "datasets.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["dataset_id", "image_id"], ["images.dataset_id", "images.id"], ondelete="CASCADE"
        ),
        Index(None, "dataset_id", "image_id"),
    )

    model_id: Mapped[UUID] = mapped_column(primary_key=True)
    dataset_id: Mapped[UUID] = mapped_column(primary_key=True)
    image_id: Mapped[UUID] = mapped_column(primary_key=True)
    project_id: Mapped[UUID]
    embedding: Mapped[str] = mapped_column(HalfVector())


class Report(Table):
    """What a job found out about a model on a dataset, where it makes no model of its own."""

    __tablename__ = "reports"
    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "job_id"], ["jobs.project_id", "jobs.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["project_id", "model_id"], ["models.project_id", "models.id"], ondelete="CASCADE"
        ),
        Index(None, "model_id", "created_at"),
        Index(None, "dataset_id"),
        CheckConstraint("stage IN ('embed', 'evaluate')", name="stage_known"),
    )

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    project_id: Mapped[UUID]
    model_id: Mapped[UUID]
    dataset_id: Mapped[UUID | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))
    stage: Mapped[str]
    body: Mapped[Json]
    created_at: Mapped[datetime] = creation_time()
