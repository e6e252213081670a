"""What a request asks of a model: images in any of the forms that are taken, and options."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from api.openapi import schema_of
from api.schemas.inference import ImagesIn
from api.uploads import MULTIPART, form_files, media_type, parsed_form
from core.auth import Caller
from core.config import Settings
from core.datasets.service import contents_of
from core.errors import (
    FewlabelsError,
    Forbidden,
    ImageInvalid,
    ImageNotFound,
    RequestInvalid,
    TooManyImages,
)
from core.images.decoding import Pixels
from core.images.reader import ImageReader
from core.images.recording import image_key, stored_name
from core.storage.store import BlobStore

BodyT = TypeVar("BodyT", bound=ImagesIn)
ModelT = TypeVar("ModelT", bound=BaseModel)
SENT_BESIDE = "-"  # stands for an image that is not in the JSON


@dataclass(frozen=True, slots=True)
class Sent:
    """One image as it was asked for: bytes, the key of stored ones, or what is wrong with it."""

    data: bytes | str | FewlabelsError
    name: str | None = None
    image_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Asked(Generic[BodyT]):
    """The options of a request and its images, in their order."""

    body: BodyT
    sent: list[Sent]


async def asked_of(request: Request, body: type[BodyT], caller: Caller) -> Asked[BodyT]:
    """What a request asks: JSON, a form, or one raw image, whose options are in the query.

    Raises:
        RequestInvalid: The form is broken, or has no file, or options are beside it in the query.
        TooManyImages: More than one request may have.
        Forbidden: Stored images are meant, and the key may not read them.
    """
    settings: Settings = request.app.state.settings
    kind = media_type(request)
    if kind == MULTIPART:
        _require_no_options(request, body)
        return await _of_form(request, body)
    if kind.startswith("image/") or kind == "application/octet-stream":
        query = request.query_params
        options = {name: query[name] for name in _options(body) if name in query}
        parsed = validated(body, {**options, "images": [SENT_BESIDE]})
        return Asked(parsed, [Sent(await request.body())])
    _require_no_options(request, body)
    parsed = validated(body, await request.body())
    if parsed.image_ids is not None:
        check_count(len(parsed.image_ids), settings)
        if not caller.may("read"):
            raise Forbidden("image_ids: stored images need an API key with the scope read, too")
        return Asked(parsed, await _stored(request, caller, parsed.image_ids))
    images = parsed.images or []
    check_count(len(images), settings)
    return Asked(parsed, [Sent(from_base64(text, index)) for index, text in enumerate(images)])


def _require_no_options(request: Request, body: type[ImagesIn]) -> None:
    # They would do nothing, and nobody would see that.
    if found := [name for name in _options(body) if name in request.query_params]:
        raise RequestInvalid(
            f"{found[0]}: found in the query, which has the options of a body that is one raw "
            "image; with JSON or a form they are fields of the body"
        )


def body_of(model: type[ImagesIn]) -> dict[str, Any]:
    """The part of the OpenAPI document that `asked_of` stands for."""
    schema = model.model_json_schema()
    options = {name: schema["properties"][name] for name in _options(model)}
    files = {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
    form = {
        "type": "object",
        "required": ["model", "files"],
        "properties": {**options, "files": files},
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": schema_of(model)},
                MULTIPART: {"schema": form},
                "image/*": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": "For a body that is one raw image.",
                "schema": {key: part for key, part in option.items() if key != "description"},
            }
            for name, option in options.items()
        ],
    }


def check_count(count: int, settings: Settings) -> None:
    """Raise TooManyImages when one request may not have so many."""
    if count > settings.max_inference_images:
        raise TooManyImages(
            f"images: found {count}; at most {settings.max_inference_images} in one request"
        )


def from_base64(text: str, index: int) -> bytes | FewlabelsError:
    """The bytes of base64, of a data: URI too; or what is wrong with it."""
    payload = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        return ImageInvalid(f"images.{index}: not base64: {error}")


def pixels_of(
    data: bytes | str | FewlabelsError, reader: ImageReader, store: BlobStore
) -> Pixels | Callable[[], Pixels]:
    """The decoded image, or what gives it and may take long; a string is the key of stored bytes.

    Raises what is wrong with it.
    """
    if isinstance(data, FewlabelsError):
        raise data
    return reader.begin(store.get(data) if isinstance(data, str) else data)


async def _of_form(request: Request, body: type[BodyT]) -> Asked[BodyT]:
    most = request.app.state.settings.max_inference_images
    async with parsed_form(request, max_files=most) as form:
        files = form_files(form)
        text = {key: value for key, value in form.multi_items() if isinstance(value, str)}
        if unexpected := {"images", "image_ids"} & text.keys():
            raise RequestInvalid(
                f"{min(unexpected)}: found a text field; in a form images are files under `files`"
            )
        parsed = validated(body, {**text, "images": [SENT_BESIDE] * len(files)})
        names = [stored_name(file.filename or "") for file in files]
        return Asked(parsed, [Sent(await f.read(), n) for f, n in zip(files, names, strict=True)])


async def _stored(request: Request, caller: Caller, image_ids: Sequence[UUID]) -> list[Sent]:
    def find() -> dict[UUID, str]:
        with request.app.state.sessions.begin() as session:
            return contents_of(session, caller, image_ids)

    found = await run_in_threadpool(find)
    return [
        Sent(image_key(found[image_id]), image_id=image_id)
        if image_id in found
        else Sent(
            ImageNotFound(f"image_ids.{index}: no image has the id {image_id}"), image_id=image_id
        )
        for index, image_id in enumerate(image_ids)
    ]


def _options(body: type[ImagesIn]) -> list[str]:
    return [name for name in body.model_fields if name not in {"images", "image_ids"}]


def validated(body: type[ModelT], given: bytes | Mapping[str, Any]) -> ModelT:
    """The body of a request, from JSON or from fields that are parsed already.

    Raises:
        RequestValidationError: As FastAPI raises it for bodies that it reads itself.
    """
    try:
        if isinstance(given, bytes):
            return body.model_validate_json(given)
        return body.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError(
            [{**entry, "loc": ("body", *entry["loc"])} for entry in error.errors()]
        ) from None
