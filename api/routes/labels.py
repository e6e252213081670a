"""Labels, as JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from api.auth import WriteCaller
from api.dependencies import SessionDep, SettingsDep
from api.errors import responses
from api.guard import GuardedRoute
from api.openapi import schema_of
from api.schemas.datasets import LabelIn, LabelsIn, LabelsOut
from api.uploads import media_type
from core.datasets import service
from core.datasets.labels import Assignment, LabelReport, put_labels
from core.errors import BodyTooLarge, DatasetNotFound, LabelsInvalid, RequestInvalid

router = APIRouter(tags=["labels"], route_class=GuardedRoute)
EXTRA = "columns too many"
FIELDS = ("file", "image_id", "label")
CSV_EXAMPLE = "file,label\na.png,bolt\nb.png,nut\n"
LABELS_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": schema_of(LabelsIn)},
            "text/csv": {"schema": {"type": "string"}, "example": CSV_EXAMPLE},
        },
    }
}


@router.put(
    "/datasets/{dataset_id}/labels",
    response_model=LabelsOut,
    responses=responses(DatasetNotFound, LabelsInvalid, BodyTooLarge),
    openapi_extra=LABELS_BODY,
    summary="Set labels, all or none, by file name or image id",
)
async def set_labels(
    dataset_id: UUID,
    request: Request,
    session: SessionDep,
    caller: WriteCaller,
    settings: SettingsDep,
) -> LabelReport:
    """JSON, or CSV with the columns `file` (or `image_id`) and `label`."""
    body = await request.body()

    def apply() -> LabelReport:
        dataset = service.get_dataset(session, caller, dataset_id, lock=True)
        is_csv = media_type(request) in {"text/csv", "application/csv"}
        labels = _from_csv(body) if is_csv else _from_json(body)
        if len(labels) > settings.max_labels_per_request:
            raise LabelsInvalid(
                f"labels: found {len(labels)}; at most {settings.max_labels_per_request} "
                "are allowed in one request"
            )
        return put_labels(session, dataset, labels, max_classes=settings.max_classes)

    return await run_in_threadpool(apply)


def _from_json(body: bytes) -> list[Assignment]:
    try:
        parsed = LabelsIn.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(
            [{**entry, "loc": ("body", *entry["loc"])} for entry in error.errors()]
        ) from None
    return [_assignment(line, label) for line, label in enumerate(parsed.labels, 1)]


def _from_csv(body: bytes) -> list[Assignment]:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestInvalid(f"body: CSV must be UTF-8; byte {error.start} is not") from None
    rows = csv.DictReader(io.StringIO(text, newline=""), restkey=EXTRA)
    columns = _columns(rows)
    if len(set(columns)) < len(columns):
        raise RequestInvalid(f"body: the first CSV line names a column twice: {columns}")
    if "label" not in columns or not {"file", "image_id"} & set(columns):
        raise RequestInvalid(
            f"body: the first CSV line names the columns {columns}; "
            "needed are label and one of file and image_id"
        )
    assignments: list[Assignment] = []
    problems: list[dict[str, object]] = []
    for row in _rows(rows):
        try:
            assignments.append(_assignment(rows.line_num, _from_row(row, columns)))
        except LabelsInvalid as error:
            problems.append({"line": rows.line_num, "detail": str(error)})
    if problems:
        raise LabelsInvalid(
            f"labels: {len(problems)} lines are malformed, nothing was changed; the first: "
            f"line {problems[0]['line']}: {problems[0]['detail']}",
            problems=problems[:100],
        )
    if not assignments:
        raise LabelsInvalid("labels: found none; at least one line is needed")
    return assignments


def _from_row(row: dict[str, Any], columns: list[str]) -> LabelIn:
    if EXTRA in row:
        raise LabelsInvalid(
            f"more than the {len(columns)} columns of the first line; quote a value with a comma"
        )
    if None in row.values():
        raise LabelsInvalid(f"fewer than the {len(columns)} columns of the first line")
    cells = {name: row[name].strip() or None for name in columns}
    if cells["label"] is None:
        raise LabelsInvalid("the label is empty; to take a label away send JSON with null")
    try:
        return LabelIn.model_validate({name: cells[name] for name in FIELDS if name in cells})
    except ValidationError as error:
        said = (f"{'.'.join(map(str, e['loc'])) or 'line'}: {e['msg']}" for e in error.errors())
        raise LabelsInvalid("; ".join(said)) from None


def _columns(rows: csv.DictReader[str]) -> list[str]:
    with _told(rows):
        rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or []]
    return list(rows.fieldnames)


def _rows(rows: csv.DictReader[str]) -> Iterator[dict[str, Any]]:
    with _told(rows):
        yield from rows


@contextmanager
def _told(rows: csv.DictReader[str]) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise RequestInvalid(f"body: line {rows.line_num + 1} is not CSV: {error}") from None


def _assignment(line: int, label: LabelIn) -> Assignment:
    return Assignment(line, label.label, image_id=label.image_id, file=label.file)
