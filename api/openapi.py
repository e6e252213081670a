"""The OpenAPI document: FastAPI's, with the schemas that routes refer to by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

TEMPLATE = "#/components/schemas/{model}"


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
        app.openapi_schema = made
    return app.openapi_schema
