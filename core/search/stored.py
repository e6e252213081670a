"""Vectors that belong to (model, image): put, count, read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, String, cast, func, literal, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from core.db.arrays import rows_of
from core.db.models import Image, ImageName, Label, Model
from core.db.vectors import Embedding, HalfVector, as_text, from_bytes

READ_ROWS = 1000


@dataclass(frozen=True, slots=True)
class VectorSet:
    """The vectors of one model in one dataset, or in all of the project where that is None."""

    model_id: UUID
    dataset_id: UUID | None = None

    def rows(self, *columns: Any) -> Select[Any]:
        """These columns of the set's rows."""
        statement = select(*columns).where(Embedding.model_id == self.model_id)
        if self.dataset_id is not None:
            statement = statement.where(Embedding.dataset_id == self.dataset_id)
        return statement


@dataclass(frozen=True, slots=True)
class VectorRow:
    """One stored vector and the image that it is of."""

    dataset_id: UUID
    image_id: UUID
    sha256: str
    name: str | None
    label: str | None


def put_vectors(
    session: Session,
    model: Model,
    dataset_id: UUID,
    *,
    image_ids: Sequence[UUID],
    vectors: Sequence[NDArray[np.float32]],
) -> None:
    """Record unit vectors; again is the same as once, and images that are gone are left out."""
    texts = [as_text(vector) for vector in vectors]
    given = rows_of(image_id=("uuid", list(image_ids)), vector=("text", texts))
    # Held until the commit: an image is not deleted between being found and being referred to.
    found = (
        select(given.c.image_id, given.c.vector)
        .join(Image, (Image.id == given.c.image_id) & (Image.dataset_id == dataset_id))
        .with_for_update(read=True, key_share=True, of=Image)
        .cte("found")
    )
    columns = ["model_id", "dataset_id", "image_id", "project_id", "embedding"]
    rows = select(
        literal(model.id),
        literal(dataset_id),
        found.c.image_id,
        literal(model.project_id),
        cast(found.c.vector, HalfVector()),
    )
    put = upsert(Embedding).from_select(columns, rows)
    keys = ["model_id", "dataset_id", "image_id"]
    session.execute(
        put.on_conflict_do_update(index_elements=keys, set_={"embedding": put.excluded.embedding})
    )


def missing_images(
    session: Session, model_id: UUID, dataset_id: UUID, sha256s: Sequence[str]
) -> list[tuple[UUID, str]]:
    """Id and sha256 of the images that have no vector of the model yet, in the order of the ids."""
    wanted = rows_of(sha256=("text", list(sha256s)))
    has_one = (
        select(Embedding.image_id)
        .where(
            Embedding.model_id == model_id,
            Embedding.dataset_id == dataset_id,
            Embedding.image_id == Image.id,
        )
        .exists()
    )
    statement = (
        select(Image.id, Image.sha256)
        .join(wanted, wanted.c.sha256 == Image.sha256)
        .where(Image.dataset_id == dataset_id, ~has_one)
        .order_by(Image.id)
    )
    return [(row.id, row.sha256) for row in session.execute(statement)]


def count_vectors(session: Session, vectors: VectorSet) -> int:
    """How many there are."""
    return int(session.scalars(vectors.rows(func.count())).one())


def dimension_of(session: Session, vectors: VectorSet) -> int | None:
    """The length of the vectors; None where there are none."""
    found = vectors.rows(func.vector_dims(Embedding.embedding)).limit(1)
    length: int | None = session.scalar(found)
    return length


def vector_of(session: Session, model_id: UUID, image_id: UUID) -> NDArray[np.float16] | None:
    """The vector of an image; None where it has none of this model."""
    sent = func.halfvec_send(Embedding.embedding)
    statement = VectorSet(model_id).rows(sent).where(Embedding.image_id == image_id)
    found = session.scalar(statement)
    return None if found is None else from_bytes(found)


def sample_vectors(
    session: Session, vectors: VectorSet, *, count: int
) -> list[tuple[UUID, NDArray[np.float16]]]:
    """So many of them with their images, spread over the set; the same ones each time."""
    order = func.md5(cast(Embedding.image_id, String))
    statement = vectors.rows(Embedding.image_id, func.halfvec_send(Embedding.embedding))
    found = session.execute(statement.order_by(order).limit(count))
    return [(image_id, from_bytes(sent)) for image_id, sent in found]


def read_vectors(session: Session, vectors: VectorSet) -> Iterator[NDArray[np.float16]]:
    """Blocks (n, D) in the order of the image ids, not all in memory at once."""
    statement = vectors.rows(func.halfvec_send(Embedding.embedding)).order_by(Embedding.image_id)
    streamed = session.execute(statement.execution_options(yield_per=READ_ROWS))
    for part in streamed.scalars().partitions():
        yield np.stack([from_bytes(sent) for sent in part])


def read_rows(session: Session, vectors: VectorSet) -> Iterator[VectorRow]:
    """Which images the vectors are of, in the same order."""
    name = (
        select(func.min(ImageName.name))
        .where(ImageName.image_id == Embedding.image_id)
        .scalar_subquery()
    )
    columns = (Embedding.dataset_id, Embedding.image_id, Image.sha256, name, Label.class_name)
    statement = (
        vectors.rows(*columns)
        .join(Image, Image.id == Embedding.image_id)
        .outerjoin(Label, Label.image_id == Embedding.image_id)
        .order_by(Embedding.image_id)
    )
    for row in session.execute(statement.execution_options(yield_per=READ_ROWS)):
        yield VectorRow(*row)


def order_digest(session: Session, vectors: VectorSet) -> str:
    """A hash of the image ids in order: where it is the same, rows stand for the same images."""
    digest = hashlib.sha256(vectors.model_id.bytes)
    statement = vectors.rows(Embedding.image_id).order_by(Embedding.image_id)
    for image_id in session.scalars(statement.execution_options(yield_per=READ_ROWS)):
        digest.update(image_id.bytes)
    return digest.hexdigest()
