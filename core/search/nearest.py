"""The nearest stored vectors by cosine distance: all of them looked at, or through an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Row, Select, Uuid, bindparam, cast, literal, select, text
from sqlalchemy import literal_column as sql
from sqlalchemy.orm import Session
from sqlalchemy.types import Float

from core.db.models import ImageName, Label
from core.db.vectors import Embedding, HalfVector, as_text
from core.errors import NotEmbedded, NotIndexed, VectorInvalid
from core.search.index import is_ready
from core.search.stored import VectorSet, dimension_of

Method = Literal["auto", "exact", "hnsw"]
EF_SEARCH = 100
MOST_EF_SEARCH = 1000  # of pgvector
Vector = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What to look for.

    Attributes:
        vectors: Where to look.
        vector: What is to be near, of any length but zero.
        labels: Only images with one of these labels; empty is any image.
        without: An image that is not to be found, since it is the one that is asked about.
        limit: Most neighbours.
        method: `exact` looks at every vector, `hnsw` needs the model's index, `auto` takes the
            index where there is one and looks at every vector where that finds too few.
        ef_search: How far the index is searched: more finds more of the nearest, and takes longer.
    """

    vectors: VectorSet
    vector: Vector
    labels: Sequence[str] = ()
    without: UUID | None = None
    limit: int = 10
    method: Method = "auto"
    ef_search: int = EF_SEARCH


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An image that is near."""

    image_id: UUID
    dataset_id: UUID
    distance: float
    name: str | None
    label: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """The neighbours, nearest first, and how they were found."""

    method: Literal["exact", "hnsw"]
    neighbours: list[Neighbour]


def find_nearest(session: Session, question: Question) -> Found:
    """The nearest images; settings of the search hold until the transaction ends.

    Raises:
        NotEmbedded: No vectors are stored where to look.
        VectorInvalid: The vector has another length than those, or points nowhere.
        NotIndexed: The method is `hnsw` and the model has no index.
    """
    dimension = dimension_of(session, question.vectors)
    if dimension is None:
        raise NotEmbedded(_nothing_stored(question.vectors))
    _check_vector(question.vector, dimension)
    ready = question.method != "exact" and is_ready(session, question.vectors.model_id)
    if question.method == "hnsw" and not ready:
        raise NotIndexed(
            "method: found 'hnsw', this model has no index; run an embed job with "
            '"index": "hnsw", or leave method away'
        )
    if ready:
        rows = search_index(session, question, dimension)
        if question.method == "hnsw" or len(rows) == question.limit:
            return Found("hnsw", _described(session, rows))
    return Found("exact", _described(session, search_all(session, question)))


def search_all(session: Session, question: Question) -> Sequence[Row[Any]]:
    """Image, dataset and distance of the nearest, after a look at every vector."""
    # No index has this expression, since the column has no dimension.
    distance = Embedding.embedding.op("<=>", return_type=Float())(_asked(question))
    return session.execute(_ordered(question, distance)).all()


def search_index(session: Session, question: Question, dimension: int) -> Sequence[Row[Any]]:
    """The same from the model's index, which may miss some; fewer rows than asked for, too."""
    effort = max(question.ef_search, min(question.limit, MOST_EF_SEARCH))
    session.execute(
        text(
            "SELECT set_config('hnsw.ef_search', :effort, true), "
            # Goes on where a filter leaves too few of what was found, in the order of distance.
            "set_config('hnsw.iterative_scan', 'strict_order', true), "
            # Ordering by the index is what is asked for: the planner takes a small table whole.
            "set_config('enable_sort', 'off', true), "
            # Only a plan that sees the model's id can use the index of that model.
            "set_config('plan_cache_mode', 'force_custom_plan', true)"
        ),
        {"effort": str(effort)},
    )
    kind = f"halfvec({int(dimension)})"
    column: ColumnElement[Any] = sql(f"(embeddings.embedding::{kind})")
    distance = column.op("<=>", return_type=Float())(_asked(question))
    rows = session.execute(_ordered(question, distance)).all()
    session.execute(text("SELECT set_config('enable_sort', 'on', true)"))
    return rows


def _asked(question: Question) -> ColumnElement[Any]:
    # Only the direction counts; half precision overflows where what was sent does not.
    asked = np.asarray(question.vector, dtype=np.float64)
    asked = asked / np.abs(asked).max()
    # A parameter of this type, not a text that is cast: that would be read again for every vector.
    return cast(literal(as_text(asked / np.linalg.norm(asked)), HalfVector()), HalfVector())


def _ordered(question: Question, distance: ColumnElement[float]) -> Select[Any]:
    named = distance.label("distance")
    # In words, not as a parameter: the index is one of a single model.
    own = bindparam("own", question.vectors.model_id, type_=Uuid(), literal_execute=True)
    columns: list[Any] = [Embedding.image_id, Embedding.dataset_id, named]
    statement = select(*columns).where(Embedding.model_id == own)
    if question.vectors.dataset_id is not None:
        statement = statement.where(Embedding.dataset_id == question.vectors.dataset_id)
    if question.without is not None:
        statement = statement.where(Embedding.image_id != question.without)
    if question.labels:
        statement = statement.join(Label, Label.image_id == Embedding.image_id)
        statement = statement.where(Label.class_name.in_(question.labels))
    return statement.order_by(named).limit(question.limit)


def _check_vector(vector: Vector, dimension: int) -> None:
    if len(vector) != dimension:
        raise VectorInvalid(
            f"vector: found {len(vector)} numbers, the model's vectors have {dimension}"
        )
    if not np.isfinite(vector).all() or not vector.any():
        raise VectorInvalid(
            "vector: found only zeros, or a number that is not finite; a direction is needed, "
            "such as an answer of /embed"
        )


def _nothing_stored(vectors: VectorSet) -> str:
    where = f" for dataset {vectors.dataset_id}" if vectors.dataset_id else ""
    return (
        f"model: no vectors of model {vectors.model_id} are stored{where}; run an embed job first"
    )


def _described(session: Session, rows: Sequence[Row[Any]]) -> list[Neighbour]:
    ids = [row.image_id for row in rows]
    names: dict[UUID, str] = {}
    named = select(ImageName.image_id, ImageName.name).where(ImageName.image_id.in_(ids))
    for image_id, name in session.execute(named.order_by(ImageName.name.desc())):
        names[image_id] = name
    labelled = select(Label.image_id, Label.class_name).where(Label.image_id.in_(ids))
    labels = dict(iter(session.execute(labelled)))
    return [
        Neighbour(
            row.image_id,
            row.dataset_id,
            float(row.distance),
            names.get(row.image_id),
            labels.get(row.image_id),
        )
        for row in rows
    ]
