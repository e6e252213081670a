"""Models: what jobs made."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import FileResponse

from api.auth import ReadCaller, WriteCaller
from api.dependencies import Cursor, Limit, SessionDep, SettingsDep, StoreDep
from api.errors import responses
from api.guard import GuardedRoute
from api.schemas.models import ModelOut, ModelPage
from core.db.models import Model
from core.errors import ArtifactCorrupt, FileNotInModel, InUse, ModelNotFound
from core.registry import service
from core.registry.artifact import MANIFEST

router = APIRouter(tags=["models"], route_class=GuardedRoute)
FileName = Annotated[str, Path(max_length=200, examples=["manifest.json"])]
UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The caller has it: `If-None-Match` names its ETag."},
}


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
    responses={**responses(ModelNotFound, FileNotInModel, ArtifactCorrupt), **UNCHANGED},
    summary="A file of the artefact: manifest.json, or one that it lists",
)
def get_file(
    model_id: UUID,
    name: FileName,
    caller: ReadCaller,
    store: StoreDep,
    settings: SettingsDep,
    session: SessionDep,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Its ETag is the sha256 of the manifest's list; parts of it may be asked for (`Range`)."""
    model = service.get_model(session, caller, model_id)
    tag = service.file_digest(model, name)
    headers = {
        "ETag": f'"{tag}"',
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    if headers["ETag"] in (if_none_match or ""):
        return Response(status_code=304, headers=headers)
    if name == MANIFEST:
        content = service.read_file(model, store, name)
        return Response(content, media_type="application/json", headers=headers)
    # From the disk, where serving keeps it too: its checksum holds, and a part is found in it.
    path = service.source_of(model, store, settings.data_dir / "models").fetch(name)
    return FileResponse(path, media_type="application/octet-stream", headers=headers)


@router.delete(
    "/models/{model_id}",
    status_code=204,
    responses=responses(ModelNotFound, InUse),
    summary="Delete a model that no alias points to",
)
def delete_model(model_id: UUID, session: SessionDep, caller: WriteCaller) -> None:
    service.delete_model(session, caller, model_id)
