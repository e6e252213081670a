"""The OpenAPI document: FastAPI's, with the schemas that routes refer to by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

TEMPLATE = "#/components/schemas/{model}"
IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Any text of yours, such as a UUID. The same request under the same key is "
    "carried out once and answered the same each time, for FEWLABELS_IDEMPOTENCY_HOURS; another "
    "request under it is refused. An upload is told by its length, and by its Content-Digest if "
    "there is one.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
REPLAYED: dict[str, Any] = {
    "description": "`true` where the request had been carried out before.",
    "schema": {"type": "string"},
}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """A reference to the schema of a body that the route reads by itself."""
    return {"$ref": TEMPLATE.format(model=model.__name__)}


def document(app: FastAPI, *, referred: Sequence[type[BaseModel]]) -> dict[str, Any]:
    """The document, made once; `referred` are the models that FastAPI does not see."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            tags=app.openapi_tags,
            routes=app.routes,
        )
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        for model in referred:
            schema = model.model_json_schema(ref_template=TEMPLATE)
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        for item in made["paths"].values():
            _tell_of_idempotency(item.get("post", {}))
        app.openapi_schema = made
    return app.openapi_schema


def _tell_of_idempotency(operation: dict[str, Any]) -> None:
    """What `GuardedRoute` does with POSTs that make something."""
    if ["write"] not in [list(*need.values()) for need in operation.get("security", [])]:
        return
    operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY)
    operation["responses"]["422"]["description"] += ", IdempotencyKeyReused"
    for status, response in operation["responses"].items():
        if status < "300":
            response.setdefault("headers", {})["Idempotent-Replayed"] = REPLAYED
