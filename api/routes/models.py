"""Models: what jobs made."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response

from api.auth import ReadCaller, WriteCaller
from api.dependencies import Cursor, Limit, SessionDep, StoreDep
from api.errors import responses
from api.guard import GuardedRoute
from api.schemas.models import ModelOut, ModelPage
from core.db.models import Model
from core.errors import FileNotInModel, InUse, ModelNotFound
from core.registry import service

router = APIRouter(tags=["models"], route_class=GuardedRoute)
FileName = Annotated[str, Path(max_length=200, examples=["manifest.json"])]


@router.get("/models", responses=responses(), summary="List models, newest first")
def list_models(
    session: SessionDep,
    caller: ReadCaller,
    kind: Literal["encoder", "classifier"] | None = None,
    job_id: Annotated[UUID | None, Query(description="Only the model of this job.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> ModelPage:
    filters = {"kind": kind, "job_id": job_id}
    page = service.list_models(session, caller, filters=filters, cursor=cursor, limit=limit)
    items = [ModelOut.model_validate(item) for item in page.items]
    return ModelPage(items=items, next_cursor=page.next_cursor)


@router.get(
    "/models/{model_id}",
    response_model=ModelOut,
    responses=responses(ModelNotFound),
    summary="A model with its manifest: classes, metrics, lineage",
)
def get_model(model_id: UUID, session: SessionDep, caller: ReadCaller) -> Model:
    return service.get_model(session, caller, model_id)


@router.get(
    "/models/{model_id}/files/{name}",
    response_class=Response,
    responses=responses(ModelNotFound, FileNotInModel),
    summary="A file of the artefact: weights.safetensors or manifest.json",
)
def get_file(
    model_id: UUID, name: FileName, session: SessionDep, caller: ReadCaller, store: StoreDep
) -> Response:
    content = service.read_file(service.get_model(session, caller, model_id), store, name)
    kind = "application/json" if name.endswith(".json") else "application/octet-stream"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=kind, headers=headers)


@router.delete(
    "/models/{model_id}",
    status_code=204,
    responses=responses(ModelNotFound, InUse),
    summary="Delete a model that no alias points to",
)
def delete_model(model_id: UUID, session: SessionDep, caller: WriteCaller) -> None:
    service.delete_model(session, caller, model_id)
