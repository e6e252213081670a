"""Labels as lines of JSON or CSV: read from a body, written to a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError

from api.faults import fault
from api.schemas.labels import REFERENCES, VALUES, LabelIn, LabelsIn
from api.schemas.strict import StrictBody
from core.datasets.export import MarkedImage
from core.datasets.labels import UNCHANGED, Assignment, LineProblem
from core.datasets.references import Reference
from core.errors import LabelsInvalid, RequestInvalid

Lines = list[Assignment | LineProblem]
EXTRA = "columns too many"
DELIMITERS = (",", ";", "\t")
FIELDS = (*REFERENCES, *VALUES)


class _LooseLabels(StrictBody):
    labels: list[Any] = Field(min_length=1)


def lines_of_json(body: bytes, *, partial: bool) -> Lines:
    """The labels of a JSON body; with `partial` an entry that is malformed is a problem line.

    Raises:
        RequestValidationError: The body, or without `partial` an entry, has not the form.
    """
    model = _LooseLabels if partial else LabelsIn
    try:
        parsed = model.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(
            [{**entry, "loc": ("body", *entry["loc"])} for entry in error.errors()]
        ) from None
    return [_line(number, entry) for number, entry in enumerate(parsed.labels, 1)]


def lines_of_csv(body: bytes) -> Lines:
    """The labels of a CSV body; a line that is malformed is a problem line.

    Raises:
        RequestInvalid: It is not CSV, or has not the columns.
        LabelsInvalid: It has no lines.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestInvalid(f"body: CSV must be UTF-8; byte {error.start} is not") from None
    delimiter = _delimiter(text)
    rows = csv.DictReader(io.StringIO(text, newline=""), restkey=EXTRA, delimiter=delimiter)
    columns = _columns(rows)
    lines: Lines = []
    for row in _rows(rows):
        try:
            lines.append(_line(rows.line_num, _cells(row, columns)))
        except LabelsInvalid as error:
            lines.append(LineProblem(rows.line_num, str(error)))
    if not lines:
        raise LabelsInvalid("labels: found none; at least one line is needed")
    return lines


def write_csv(images: Iterable[MarkedImage], file: IO[bytes]) -> None:
    """Write labels in the form that `lines_of_csv` reads, every value as it is."""
    # "\r\n" ends a line, so that both characters are quoted where they stand in a value.
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(FIELDS)
    for image in images:
        writer.writerow([image.image_id, image.sha256, image.file, image.label, image.split])
    text.flush()
    text.detach()


def _line(number: int, entry: object) -> Assignment | LineProblem:
    try:
        label = LabelIn.model_validate(entry)
    except ValidationError as error:
        faults = (fault({**said, "loc": ("line", *said["loc"])}) for said in error.errors())
        detail = "; ".join(f"{said['field']}: {said['detail']}" for said in faults)
        return LineProblem(number, detail)
    given = label.model_fields_set
    return Assignment(
        number,
        Reference(label.image_id, label.sha256, label.file),
        label=label.label if "label" in given else UNCHANGED,
        split=label.split if "split" in given else UNCHANGED,
    )


def _cells(row: dict[str, Any], columns: list[str]) -> dict[str, str]:
    """The cells that are not blank, by the name of their field."""
    if EXTRA in row:
        raise LabelsInvalid(
            f"more than the {len(columns)} columns of the first line; quote values with separators"
        )
    if None in row.values():
        raise LabelsInvalid(f"fewer than the {len(columns)} columns of the first line")
    # Only blanks: a name or a class may begin or end with what else Python counts as space.
    cells = {name: row[name] for name in FIELDS if name in row and row[name].strip(" \t")}
    asked = [name for name in VALUES if name in columns]
    if not cells.keys() & set(asked):
        raise LabelsInvalid(
            f"{' and '.join(asked)}: empty; to take a label or split away send JSON with null"
        )
    exact = {"file", "label"}
    return {name: cell if name in exact else cell.strip() for name, cell in cells.items()}


def _delimiter(text: str) -> str:
    # Spreadsheets write semicolons where the comma stands in numbers. The first line decides, as
    # no column that is read has any of these in its name.
    first = text.partition("\n")[0]
    found = [mark for mark in DELIMITERS if mark in first]
    return found[0] if found else ","


def _columns(rows: csv.DictReader[str]) -> list[str]:
    with _told(rows):
        rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or []]
    columns = list(rows.fieldnames)
    if len(set(columns)) < len(columns):
        raise RequestInvalid(f"body: the first CSV line names a column twice: {columns}")
    if not ({*REFERENCES} & {*columns} and {*VALUES} & {*columns}):
        raise RequestInvalid(
            f"body: the first CSV line names the columns {columns}; "
            "needed are label, split or both, and one of file, sha256 and image_id"
        )
    return columns


def _rows(rows: csv.DictReader[str]) -> Iterator[dict[str, Any]]:
    with _told(rows):
        yield from rows


@contextmanager
def _told(rows: csv.DictReader[str]) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise RequestInvalid(f"body: line {rows.line_num + 1} is not CSV: {error}") from None
