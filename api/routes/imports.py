"""Imports: what became of each file of an upload."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from api.auth import ReadCaller
from api.dependencies import Cursor, Limit, SessionDep
from api.errors import responses
from api.guard import GuardedRoute
from api.schemas.uploads import ImportDetailOut, ImportOut, ImportPage, NumberedLineOut
from core.datasets import service
from core.db.imports import Import, ImportLine
from core.db.paging import fetch_page
from core.errors import DatasetNotFound, ImportNotFound
from core.images import imports

router = APIRouter(tags=["images"], route_class=GuardedRoute)
JSON_LINES = "application/x-ndjson"


@router.get(
    "/datasets/{dataset_id}/imports",
    responses=responses(DatasetNotFound),
    summary="List the uploads to a dataset, newest first",
)
def list_imports(
    dataset_id: UUID,
    session: SessionDep,
    caller: ReadCaller,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> ImportPage:
    dataset = service.get_dataset(session, caller, dataset_id)
    page = fetch_page(session, imports.imports_of(dataset), Import, cursor=cursor, limit=limit)
    items = [ImportOut.model_validate(item) for item in page.items]
    return ImportPage(items=items, next_cursor=page.next_cursor)


@router.get(
    "/datasets/{dataset_id}/imports/{import_id}",
    responses=responses(DatasetNotFound, ImportNotFound),
    summary="An upload and what became of each of its files",
)
def get_import(
    dataset_id: UUID,
    import_id: UUID,
    session: SessionDep,
    caller: ReadCaller,
    outcome: Annotated[
        Literal["added", "duplicate", "rejected", "unlabelled"] | None,
        Query(description="Only these lines."),
    ] = None,
    after: Annotated[
        int, Query(ge=-1, le=2**31 - 1, description="The next_after of the page before.")
    ] = -1,
    limit: Limit = 1000,
) -> ImportDetailOut:
    dataset = service.get_dataset(session, caller, dataset_id)
    found = imports.get_import(session, dataset, import_id)
    page = imports.page_of_lines(session, found, outcome=outcome, after=after, limit=limit)
    return ImportDetailOut(
        **ImportOut.model_validate(found).model_dump(),
        lines=[NumberedLineOut.model_validate(line) for line in page.items],
        next_after=page.next_after,
    )


@router.get(
    "/datasets/{dataset_id}/imports/{import_id}/report.jsonl",
    response_class=StreamingResponse,
    responses={
        **responses(DatasetNotFound, ImportNotFound),
        200: {"content": {JSON_LINES: {"schema": {"type": "string"}}}},
    },
    summary="The whole report of an upload: a line of JSON for each of its files",
)
def import_report(
    dataset_id: UUID, import_id: UUID, request: Request, session: SessionDep, caller: ReadCaller
) -> StreamingResponse:
    dataset = service.get_dataset(session, caller, dataset_id)
    found = imports.get_import(session, dataset, import_id)
    lines = imports.all_lines(request.app.state.sessions, found)
    headers = {"Content-Disposition": f'attachment; filename="import-{import_id}.jsonl"'}
    return StreamingResponse(_json_lines(lines), media_type=JSON_LINES, headers=headers)


def _json_lines(lines: Iterator[ImportLine]) -> Iterator[str]:
    for line in lines:
        shown = NumberedLineOut.model_validate(line).model_dump(mode="json")
        yield json.dumps(shown, ensure_ascii=False) + "\n"
