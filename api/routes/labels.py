"""Labels: set as JSON or CSV, got back as CSV, with their history."""

from __future__ import annotations

from functools import partial as bind
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.auth import ReadCaller, WriteCaller
from api.dependencies import Cursor, Limit, SessionDep, SettingsDep
from api.downloads import attachment
from api.errors import responses
from api.guard import GuardedRoute
from api.label_lines import lines_of_csv, lines_of_json, write_csv
from api.openapi import schema_of
from api.schemas.labels import LabelChangeOut, LabelHistoryPage, LabelsIn, LabelsOut
from api.uploads import media_type
from core.datasets import service
from core.datasets.export import marked_images
from core.datasets.history import list_changes
from core.datasets.labels import LabelReport, put_labels
from core.errors import BodyTooLarge, DatasetNotFound, LabelsInvalid

router = APIRouter(tags=["labels"], route_class=GuardedRoute)
CSV_EXAMPLE = "file,label\na.png,bolt\nb.png,nut\n"
CSV_ANSWER = "image_id,sha256,file,label,split\r\n"
LABELS_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": schema_of(LabelsIn)},
            "text/csv": {"schema": {"type": "string"}, "example": CSV_EXAMPLE},
        },
    }
}
LABELS_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A line for each image with a label or a given split, as PUT takes it.",
        "content": {"text/csv": {"schema": {"type": "string"}, "example": CSV_ANSWER}},
    }
}


@router.put(
    "/datasets/{dataset_id}/labels",
    response_model=LabelsOut,
    responses=responses(DatasetNotFound, LabelsInvalid, BodyTooLarge),
    openapi_extra=LABELS_BODY,
    summary="Set labels and splits, all or none, by file name, sha256 or image id",
)
async def set_labels(
    dataset_id: UUID,
    request: Request,
    session: SessionDep,
    caller: WriteCaller,
    settings: SettingsDep,
    partial: Annotated[
        bool, Query(description="Set what is right and list what is wrong, line by line.")
    ] = False,
) -> LabelReport:
    """JSON, or CSV with the columns `label`, `split` or both, and `file`, `sha256` or `image_id`.

    Images that are not named keep what they have; so does an image in CSV where a cell is empty.
    """
    body = await request.body()

    def apply() -> LabelReport:
        dataset = service.get_dataset(session, caller, dataset_id, lock=True)
        is_csv = media_type(request) in {"text/csv", "application/csv"}
        lines = lines_of_csv(body) if is_csv else lines_of_json(body, partial=partial)
        if len(lines) > settings.max_labels_per_request:
            raise LabelsInvalid(
                f"labels: found {len(lines)}; at most {settings.max_labels_per_request} "
                "are allowed in one request"
            )
        most = settings.max_classes
        return put_labels(session, caller, dataset, lines, max_classes=most, partial=partial)

    return await run_in_threadpool(apply)


@router.get(
    "/datasets/{dataset_id}/labels.csv",
    response_class=Response,
    responses={**LABELS_FILE, **responses(DatasetNotFound)},
    summary="All labels and given splits as CSV, to keep or to change and set again",
)
def get_labels(
    dataset_id: UUID, session: SessionDep, caller: ReadCaller, settings: SettingsDep
) -> Response:
    """Values stand as they are: a spreadsheet takes those that begin with `=` for formulas."""
    dataset = service.get_dataset(session, caller, dataset_id)
    return attachment(
        bind(write_csv, marked_images(session, dataset)),
        name="labels.csv",
        media_type="text/csv",
        folder=settings.data_dir / "downloads",
    )


@router.get(
    "/datasets/{dataset_id}/labels/history",
    responses=responses(DatasetNotFound),
    summary="Who changed which label when, newest first",
)
def get_label_history(
    dataset_id: UUID,
    session: SessionDep,
    caller: ReadCaller,
    image_id: Annotated[UUID | None, Query(description="Only changes of this image.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> LabelHistoryPage:
    dataset = service.get_dataset(session, caller, dataset_id)
    page = list_changes(session, dataset, image_id=image_id, cursor=cursor, limit=limit)
    items = [
        LabelChangeOut(
            image_id=change.image_id,
            from_label=change.from_class,
            to_label=change.to_class,
            key_id=change.key_id,
            key_name=change.key_name,
            changed_at=change.created_at,
        )
        for change in page.items
    ]
    return LabelHistoryPage(items=items, next_cursor=page.next_cursor)
