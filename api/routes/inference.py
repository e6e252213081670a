"""Embeddings and predictions; no database on the hot path."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from pydantic import ValidationError

from api.auth import InferCaller
from api.errors import responses
from api.guard import GuardedRoute
from api.openapi import schema_of
from api.presence import TimeoutMs, in_seconds, unless_gone
from api.schemas.inference import (
    EmbeddingOut,
    EmbedOut,
    InferenceIn,
    ItemErrorOut,
    PredictionOut,
    PredictOut,
    ScoredLabel,
)
from api.uploads import MULTIPART, form_files, media_type, parsed_form
from core.auth import Caller
from core.config import Settings
from core.errors import (
    ArtifactCorrupt,
    BodyTooLarge,
    DeadlineExceeded,
    FewlabelsError,
    ImageInvalid,
    ModelNotFound,
    NoRoomForModel,
    Overloaded,
    TooManyImages,
    WrongModelKind,
)
from core.images.decoding import decode
from core.images.recording import stored_name
from core.registry.artifact import ModelSource
from core.telemetry import INFERENCE_IMAGES

if TYPE_CHECKING:
    from core.inference.engine import Answered, Engine
    from core.inference.flight import Timing
    from core.inference.model import Answer, LoadedModel

router = APIRouter(tags=["inference"], route_class=GuardedRoute)
ERRORS = responses(
    ModelNotFound,
    WrongModelKind,
    ImageInvalid,
    TooManyImages,
    BodyTooLarge,
    ArtifactCorrupt,
    NoRoomForModel,
    Overloaded,
    DeadlineExceeded,
)
INFERENCE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": schema_of(InferenceIn)},
            MULTIPART: {
                "schema": {
                    "type": "object",
                    "required": ["model", "files"],
                    "properties": {
                        "model": {
                            "type": "string",
                            "minLength": 1,
                            "maxLength": 200,
                            "description": "Id or alias.",
                        },
                        "top_k": {"type": "integer", "default": 5, "minimum": 1, "maximum": 1000},
                        "files": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                        },
                    },
                }
            },
        },
    }
}


@dataclass(frozen=True, slots=True)
class _Sent:
    """One image as it was sent: bytes, or what is wrong with them."""

    name: str | None
    data: bytes | FewlabelsError


@dataclass(frozen=True, slots=True)
class _Asked:
    reference: str
    top_k: int
    sent: list[_Sent]


@dataclass(frozen=True, slots=True)
class _Answered:
    model: LoadedModel
    asked: _Asked
    results: list[Answer | FewlabelsError]
    timing: Timing


@router.post("/embed", responses=ERRORS, openapi_extra=INFERENCE_BODY, summary="Vectors of images")
async def embed(
    request: Request, response: Response, caller: InferCaller, timeout_ms: TimeoutMs = None
) -> EmbedOut:
    """L2-normalised vectors, in the order of the images; a bad image fails alone."""
    answered = await _answer(request, caller, kind=None, timeout_ms=timeout_ms)
    response.headers.update(told(answered.model.model_id, answered.timing))
    items = [
        EmbeddingOut(index=index, name=sent.name, error=_error(result))
        if isinstance(result, FewlabelsError)
        else EmbeddingOut(index=index, name=sent.name, embedding=result.embedding_D.tolist())
        for index, (sent, result) in enumerate(
            zip(answered.asked.sent, answered.results, strict=True)
        )
    ]
    model = answered.model
    return EmbedOut(model_id=model.model_id, dimension=model.dimension, items=items)


@router.post(
    "/predict", responses=ERRORS, openapi_extra=INFERENCE_BODY, summary="Classes of images"
)
async def predict(
    request: Request, response: Response, caller: InferCaller, timeout_ms: TimeoutMs = None
) -> PredictOut:
    """The likeliest classes, in the order of the images; a bad image fails alone."""
    answered = await _answer(request, caller, kind="classifier", timeout_ms=timeout_ms)
    response.headers.update(told(answered.model.model_id, answered.timing))
    items = []
    for index, (sent, result) in enumerate(zip(answered.asked.sent, answered.results, strict=True)):
        if isinstance(result, FewlabelsError):
            items.append(PredictionOut(index=index, name=sent.name, error=_error(result)))
        else:
            scored = _top(result, answered.model.classes, answered.asked.top_k)
            items.append(
                PredictionOut(
                    index=index, name=sent.name, label=scored[0].label, predictions=scored
                )
            )
    return PredictOut(model_id=answered.model.model_id, items=items)


async def _answer(
    request: Request, caller: Caller, *, kind: str | None, timeout_ms: int | None
) -> _Answered:
    settings: Settings = request.app.state.settings
    asked = await _parse(request, settings)

    async def work() -> Answered:
        source = await request.app.state.lookup.source(caller, asked.reference)
        _require_kind(source, kind)
        engine = cast("Engine", await request.app.state.engine)
        loads = [partial(_pixels, item.data, settings) for item in asked.sent]
        return await engine.answer(source, loads, seconds=in_seconds(timeout_ms))

    answered = await unless_gone(request, work())
    results = answered.results
    bad = [result for result in results if isinstance(result, FewlabelsError)]
    INFERENCE_IMAGES.labels("rejected").inc(len(bad))
    INFERENCE_IMAGES.labels("answered").inc(len(results) - len(bad))
    if len(bad) == len(results):
        _raise_all(asked, bad)
    return _Answered(answered.model, asked, results, answered.timing)


def told(model_id: UUID, timing: Timing) -> dict[str, str]:
    """Headers that say which model answered, and where the time went, in milliseconds."""
    steps = {"decode": timing.decode, "queue": timing.queue, "forward": timing.forward}
    spent = ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in steps.items())
    return {"X-Fewlabels-Model": str(model_id), "Server-Timing": spent}


def _require_kind(source: ModelSource, kind: str | None) -> None:
    found = source.manifest["kind"]
    if kind is not None and found != kind:
        raise WrongModelKind(
            f"model: {source.model_id} is of the kind {found}, /predict needs a {kind}; "
            "an encoder answers /embed"
        )


async def _parse(request: Request, settings: Settings) -> _Asked:
    if media_type(request) == MULTIPART:
        async with parsed_form(request, max_files=settings.max_inference_images) as form:
            files = form_files(form)
            text = {key: value for key, value in form.multi_items() if isinstance(value, str)}
            fields: dict[str, Any] = {key: text[key] for key in ("model", "top_k") if key in text}
            parsed = _validated({**fields, "images": ["-"] * len(files)})
            sent = [_Sent(stored_name(file.filename or ""), await file.read()) for file in files]
            return _Asked(parsed.model, parsed.top_k, sent)
    parsed = _validated(await request.body())
    _check_count(len(parsed.images), settings)
    sent = [_Sent(None, _from_base64(text, index)) for index, text in enumerate(parsed.images)]
    return _Asked(parsed.model, parsed.top_k, sent)


def _validated(body: bytes | dict[str, Any]) -> InferenceIn:
    try:
        if isinstance(body, bytes):
            return InferenceIn.model_validate_json(body)
        return InferenceIn.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError(
            [{**entry, "loc": ("body", *entry["loc"])} for entry in error.errors()]
        ) from None


def _check_count(count: int, settings: Settings) -> None:
    if count > settings.max_inference_images:
        raise TooManyImages(
            f"images: found {count}; at most {settings.max_inference_images} in one request"
        )


def _from_base64(text: str, index: int) -> bytes | FewlabelsError:
    payload = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        return ImageInvalid(f"images.{index}: not base64: {error}")


def _pixels(data: bytes | FewlabelsError, settings: Settings) -> NDArray[np.uint8]:
    """The decoded image; raises ImageInvalid."""
    if isinstance(data, FewlabelsError):
        raise data
    limits = {"max_bytes": settings.max_image_bytes, "max_pixels": settings.max_image_pixels}
    return decode(data, **limits).pixels_HWC


def _raise_all(asked: _Asked, bad: list[FewlabelsError]) -> None:
    faults = [
        {"index": index, "name": sent.name, "code": error.code, "detail": str(error)}
        for index, (sent, error) in enumerate(zip(asked.sent, bad, strict=True))
    ]
    which = "the image" if len(bad) == 1 else f"none of the {len(bad)} images"
    said = "cannot be used" if len(bad) == 1 else "can be used; the first"
    raise type(bad[0])(f"images: {which} {said}: {bad[0]}", problems=faults)


def _top(answer: Answer, classes: list[str], count: int) -> list[ScoredLabel]:
    probabilities = answer.probabilities_K
    assert probabilities is not None
    order = probabilities.argsort()[::-1][:count]
    return [ScoredLabel(label=classes[i], probability=float(probabilities[i])) for i in order]


def _error(error: FewlabelsError) -> ItemErrorOut:
    return ItemErrorOut(code=error.code, detail=str(error))
