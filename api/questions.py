"""What a search is to be near to: JSON, or a form with the image as a file."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from api.asked import SENT_BESIDE, from_base64, validated
from api.openapi import schema_of
from api.schemas.search import SearchIn
from api.uploads import MULTIPART, form_files, media_type, parsed_form
from core.errors import FewlabelsError, RequestInvalid

OF_JSON = ("image", "image_id", "vector")


def _body() -> dict[str, Any]:
    schema = SearchIn.model_json_schema()
    options = {name: part for name, part in schema["properties"].items() if name not in OF_JSON}
    file = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "required": ["model", "image"],
        "properties": {**options, "image": file},
    }
    content = {"application/json": {"schema": schema_of(SearchIn)}, MULTIPART: {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


SEARCH_BODY = _body()


async def question_of(request: Request) -> tuple[SearchIn, bytes | FewlabelsError | None]:
    """The options of a search, and the image if there is one: its bytes, or what is wrong with it.

    Raises:
        RequestInvalid: The form is broken or has no file, or says what else to be near to.
        TooManyImages: It has more files than one.
        RequestValidationError: An option is not what it may be.
    """
    if media_type(request) != MULTIPART:
        body = validated(SearchIn, await request.body())
        return body, None if body.image is None else from_base64(body.image, 0)
    async with parsed_form(request, max_files=1) as form:
        [file] = form_files(form)
        text: dict[str, Any] = {
            key: value for key, value in form.multi_items() if isinstance(value, str)
        }
        if unexpected := set(OF_JSON) & text.keys():
            raise RequestInvalid(
                f"{min(unexpected)}: found a text field; a form has the image as its file"
            )
        if "labels" in text:
            text["labels"] = form.getlist("labels")
        return validated(SearchIn, {**text, "image": SENT_BESIDE}), await file.read()
