"""A vector for every image of a dataset, kept in the database; an index over a model's vectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine
from torch.nn import functional

from core.datasets.cache import decoded
from core.db.models import Model
from core.errors import ModelNotFound, SpecInvalid
from core.jobs.outages import outlast
from core.jobs.service import record_progress
from core.learning.evaluation import features
from core.search.index import build_index, is_ready
from core.search.recall import measure_recall
from core.search.stored import (
    VectorSet,
    count_vectors,
    dimension_of,
    missing_images,
    put_vectors,
)
from core.stages.context import StageContext
from core.stages.parent import ParentModel
from core.stages.report import Finding

CHUNK = 256  # images a transaction: what an interruption may cost


def run_embed(context: StageContext) -> Finding:
    """Embed the images that have no vector of the model yet, then build and measure the index.

    Each chunk is recorded in a transaction that holds the job by its token, so an attempt after
    a crash finds what is done, and a worker that has lost the job records nothing.

    Raises:
        SpecInvalid: The job names no model.
        ModelNotFound: The model was deleted meanwhile.
        JobCancelled, LeaseLost: The job is to stop.
    """
    parent = context.parent()
    if parent is None:
        raise SpecInvalid("model_id: an embed job needs a model")
    dataset_id = cast(UUID, context.job.dataset_id)
    vectors = VectorSet(parent.model_id, dataset_id)
    sha256s = [item.sha256 for item in context.items()]
    with context.sessions.begin() as session:
        missing = missing_images(session, parent.model_id, dataset_id, sha256s)
    unusable: list[str] = []
    for start in range(0, len(missing), CHUNK):
        chunk = missing[start : start + CHUNK]
        vectors_ND = _embed(context, parent, [sha256 for _, sha256 in chunk])
        progress = {
            "phase": "embedding",
            "step": len(sha256s) - len(missing) + start + len(chunk),
            "steps": len(sha256s),
        }
        usable = np.logical_and(np.isfinite(vectors_ND).all(axis=1), vectors_ND.any(axis=1))
        unusable += [str(chunk[row][0]) for row in np.flatnonzero(~usable)]
        ids = [image_id for (image_id, _), good in zip(chunk, usable.tolist(), strict=True) if good]
        record = partial(_record, context, parent, dataset_id, ids, vectors_ND[usable], progress)
        outlast(record, seconds=context.settings.lease_seconds, give_up=context.should_stop)
    with context.sessions.begin() as session:
        stored, dimension = count_vectors(session, vectors), dimension_of(session, vectors)
    body: dict[str, Any] = {
        "dimension": dimension,
        "vectors": stored,
        "embedded": len(missing) - len(unusable),
        "there_before": len(sha256s) - len(missing),
        "unusable": len(unusable),
        "unusable_image_ids": unusable[:100],
        "index": _index(context, vectors, dimension),
    }
    return Finding(parent.model_id, body)


def _embed(
    context: StageContext, parent: ParentModel, sha256s: Sequence[str]
) -> NDArray[np.float32]:
    """Unit vectors (n, D) as serving gives them; zeros stay zeros."""
    canvases = []
    for canvas in decoded(context.store, sha256s, parent.preprocessing.canvas):
        canvases.append(canvas)
        context.tell("embedding: reading images", len(canvases), len(sha256s) + 1)
    features_ND = features(
        parent.module,
        np.stack(canvases),
        parent.preprocessing,
        device=context.device,
        batch_size=context.job.plan["batch_size"],
    )
    vectors_ND: NDArray[np.float32] = functional.normalize(features_ND, dim=1).numpy()
    return vectors_ND


def _record(
    context: StageContext,
    parent: ParentModel,
    dataset_id: UUID,
    image_ids: Sequence[UUID],
    vectors_ND: NDArray[np.float32],
    progress: dict[str, Any],
) -> None:
    with context.sessions.begin() as session:
        # First: it refuses a token that is not the job's any more, and holds the job's row.
        record_progress(session, context.job.id, context.held.token, progress=progress, metrics=[])
        model = session.get(Model, parent.model_id)
        if model is None:
            raise ModelNotFound("model_id: the model that this job embeds with was deleted")
        rows = list(vectors_ND)
        put_vectors(session, model, dataset_id, image_ids=image_ids, vectors=rows)


def _index(
    context: StageContext, vectors: VectorSet, dimension: int | None
) -> dict[str, Any] | None:
    """What the index is worth; None where there is none."""
    if dimension is None:
        return None
    with context.sessions.begin() as session:
        there = is_ready(session, vectors.model_id)
    if context.job.plan["index"] == "hnsw" and not there:
        there = build_index(
            cast(Engine, context.sessions.kw["bind"]),
            vectors.model_id,
            dimension,
            memory_mb=context.settings.index_memory_mb,
            should_stop=context.should_stop,
            on_progress=context.tell,
        )
    if not there:
        return None
    context.tell("measuring the index", 0, 1)
    measured = measure_recall(context.sessions, vectors, dimension)
    return {"kind": "hnsw", **(measured or {})}
