"""Embeddings and predictions; no database on the hot path."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fastapi import APIRouter, Request, Response

from api.answered import FAILED, NPY, classes, raise_if_all_failed, vectors
from api.asked import Asked, asked_of, body_of, pixels_of
from api.auth import InferCaller
from api.errors import responses
from api.guard import GuardedRoute
from api.presence import TimeoutMs, in_seconds, unless_gone
from api.schemas.inference import EmbedIn, EmbedOut, ImagesIn, PredictIn, PredictOut
from core.auth import Caller
from core.errors import (
    ArtifactCorrupt,
    BodyTooLarge,
    DeadlineExceeded,
    FewlabelsError,
    ImageInvalid,
    ImageNotFound,
    ModelNotFound,
    NoRoomForModel,
    Overloaded,
    TooManyImages,
    WrongModelKind,
)
from core.registry.artifact import ModelSource
from core.telemetry import INFERENCE_IMAGES

if TYPE_CHECKING:
    from core.inference.engine import Answered, Engine

BodyT = TypeVar("BodyT", bound=ImagesIn)
router = APIRouter(tags=["inference"], route_class=GuardedRoute)
ERRORS = responses(
    ModelNotFound,
    ImageNotFound,
    WrongModelKind,
    ImageInvalid,
    TooManyImages,
    BodyTooLarge,
    ArtifactCorrupt,
    NoRoomForModel,
    Overloaded,
    DeadlineExceeded,
)
TOLD: dict[str, Any] = {
    "X-Fewlabels-Model": {
        "description": "The id of the model that answered.",
        "schema": {"type": "string", "format": "uuid"},
    },
    "Server-Timing": {
        "description": "Milliseconds of decode, queue and forward, of the slowest image.",
        "schema": {"type": "string"},
    },
}
VECTORS: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            **TOLD,
            FAILED: {
                "description": "Of a NumPy file: indices of its rows without an answer, NaN.",
                "schema": {"type": "string"},
            },
        },
        "content": {NPY: {"schema": {"type": "string", "format": "binary"}}},
    }
}
CLASSES: dict[int | str, dict[str, Any]] = {200: {"headers": TOLD}}


@router.post(
    "/embed",
    response_model=EmbedOut,
    responses={**VECTORS, **ERRORS},
    openapi_extra=body_of(EmbedIn),
    summary="Vectors of images",
)
async def embed(request: Request, caller: InferCaller, timeout_ms: TimeoutMs = None) -> Response:
    """L2-normalised vectors, in the order of the images; a bad image fails alone.

    `Accept: application/x-npy` answers with a NumPy file, a row for each image.
    """
    asked = await asked_of(request, EmbedIn, caller)
    return vectors(request, asked, await _answers(request, caller, asked, timeout_ms=timeout_ms))


@router.post(
    "/predict",
    response_model=PredictOut,
    responses={**CLASSES, **ERRORS},
    openapi_extra=body_of(PredictIn),
    summary="Classes of images",
)
async def predict(request: Request, caller: InferCaller, timeout_ms: TimeoutMs = None) -> Response:
    """The likeliest classes, in the order of the images; a bad image fails alone."""
    asked = await asked_of(request, PredictIn, caller)
    return classes(asked, await _answers(request, caller, asked, timeout_ms=timeout_ms))


async def _answers(
    request: Request, caller: Caller, asked: Asked[BodyT], *, timeout_ms: int | None
) -> Answered:
    state = request.app.state

    async def work() -> Answered:
        source = await state.lookup.source(caller, asked.body.model)
        if isinstance(asked.body, PredictIn):
            _require_classifier(source)
        engine = cast("Engine", await state.engine)
        loads = [partial(pixels_of, sent.data, state.reader, state.store) for sent in asked.sent]
        return await engine.answer(
            source,
            loads,
            seconds=in_seconds(timeout_ms),
            labels_only=isinstance(asked.body, PredictIn),
        )

    answered = await unless_gone(request, work())
    bad = sum(isinstance(result, FewlabelsError) for result in answered.results)
    INFERENCE_IMAGES.labels("rejected").inc(bad)
    INFERENCE_IMAGES.labels("answered").inc(len(answered.results) - bad)
    raise_if_all_failed(asked.sent, answered.results)
    return answered


def _require_classifier(source: ModelSource) -> None:
    found = source.manifest["kind"]
    if found != "classifier":
        raise WrongModelKind(
            f"model: {source.model_id} is of the kind {found}, /predict needs a classifier; "
            "an encoder answers /embed"
        )
