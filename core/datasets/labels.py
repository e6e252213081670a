"""Labels: assigned by image id or file name, all or nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.db.models import Dataset, Image, ImageName, Label
from core.errors import LabelsInvalid
from core.images.recording import stored_name

SHOWN_PROBLEMS = 100
STATEMENT_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class Assignment:
    """One label: the image by id or by file name; None as class takes the label away."""

    line: int
    class_name: str | None
    image_id: UUID | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class LabelReport:
    """How many labels were set and taken away."""

    labelled: int
    removed: int
    class_names: list[str]


def put_labels(
    session: Session, dataset: Dataset, assignments: Sequence[Assignment], *, max_classes: int
) -> LabelReport:
    """Set labels; when one line is wrong, nothing changes.

    Raises:
        LabelsInvalid: Images are unknown, ambiguous or named twice with different classes;
            every line is listed.
    """
    # One at a time: two that set and remove the same labels could wait for each other.
    session.execute(
        select(Dataset.id).where(Dataset.id == dataset.id).with_for_update(key_share=True)
    )
    chosen = _choose(session, dataset.id, assignments)
    removed = _write(session, dataset.id, chosen)
    classes = class_names(session, dataset.id)
    if len(classes) > max_classes:
        raise LabelsInvalid(
            f"labels: found {len(classes)} classes; at most {max_classes} are allowed"
        )
    return LabelReport(len(chosen) - removed, removed, classes)


def _choose(
    session: Session, dataset_id: UUID, assignments: Sequence[Assignment]
) -> dict[UUID, Assignment]:
    """The one assignment of each image; LabelsInvalid lists all that are wrong."""
    files = {stored_name(a.file) for a in assignments if a.file}
    by_file = _resolve_names(session, dataset_id, files)
    by_id = _known_ids(session, dataset_id, {a.image_id for a in assignments if a.image_id})
    problems: list[dict[str, object]] = []
    chosen: dict[UUID, Assignment] = {}
    for assignment in assignments:
        images = (
            by_file.get(stored_name(assignment.file), set())
            if assignment.file is not None
            else {assignment.image_id} & by_id
        )
        problem = _problem(assignment, images, chosen)
        if problem:
            problems.append({"line": assignment.line, "detail": problem})
        else:
            (image_id,) = images
            assert image_id is not None
            chosen[image_id] = assignment
    if problems:
        raise LabelsInvalid(
            f"labels: {len(problems)} of {len(assignments)} lines are wrong, nothing was changed; "
            f"the first: line {problems[0]['line']}: {problems[0]['detail']}",
            problems=problems[:SHOWN_PROBLEMS],
        )
    return chosen


def class_names(session: Session, dataset_id: UUID) -> list[str]:
    """The distinct classes of a dataset in the order of their code points."""
    found = session.scalars(
        select(Label.class_name).where(Label.dataset_id == dataset_id).distinct()
    )
    return sorted(found)


def _problem(
    assignment: Assignment, images: set[UUID | None] | set[UUID], chosen: dict[UUID, Assignment]
) -> str | None:
    what = f"file {assignment.file!r}" if assignment.file else f"image_id {assignment.image_id}"
    if not images:
        return f"{what}: the dataset has no such image"
    if len(images) > 1:
        return f"{what}: {len(images)} images have this name; use image_id"
    (image_id,) = images
    earlier = chosen.get(image_id) if image_id else None
    if earlier is not None and earlier.class_name != assignment.class_name:
        return (
            f"{what}: {assignment.class_name!r} contradicts {earlier.class_name!r} "
            f"of line {earlier.line}, which names the same image"
        )
    return None


def _known_ids(session: Session, dataset_id: UUID, ids: set[UUID]) -> set[UUID]:
    found: set[UUID] = set()
    for part in _parts(sorted(ids)):
        found.update(
            session.scalars(
                select(Image.id).where(Image.dataset_id == dataset_id, Image.id.in_(part))
            )
        )
    return found


def _resolve_names(session: Session, dataset_id: UUID, names: set[str]) -> dict[str, set[UUID]]:
    """Images by the full name they were uploaded under, else by its last component."""
    exact = _look_up(session, dataset_id, names, ImageName.name)
    last_component = func.regexp_replace(ImageName.name, "^.*/", "")
    rest = {name for name in names - exact.keys() if "/" not in name}
    return exact | _look_up(session, dataset_id, rest, last_component)


def _look_up(
    session: Session, dataset_id: UUID, names: set[str], column: object
) -> dict[str, set[UUID]]:
    found: dict[str, set[UUID]] = defaultdict(set)
    for part in _parts(sorted(names)):
        rows = session.execute(
            select(column, ImageName.image_id).where(  # type: ignore[call-overload]
                ImageName.dataset_id == dataset_id,
                column.in_(part),  # type: ignore[attr-defined]
            )
        )
        for name, image_id in rows:
            found[name].add(image_id)
    return dict(found)


def _write(session: Session, dataset_id: UUID, chosen: dict[UUID, Assignment]) -> int:
    gone = [image_id for image_id, a in chosen.items() if a.class_name is None]
    rows = [
        {"image_id": image_id, "dataset_id": dataset_id, "class_name": a.class_name}
        for image_id, a in sorted(chosen.items())
        if a.class_name is not None
    ]
    for part in _parts(gone):
        session.execute(delete(Label).where(Label.image_id.in_(part)))
    for batch in _parts(rows):
        statement = insert(Label).values(batch)
        session.execute(
            statement.on_conflict_do_update(
                index_elements=["image_id"],
                set_={
                    "class_name": statement.excluded.class_name,
                    "updated_at": func.clock_timestamp(),
                },
            )
        )
    return len(gone)


def _parts(items: Iterable[object]) -> Iterable[list]:  # type: ignore[type-arg]
    rows = list(items)
    return [rows[start : start + STATEMENT_ROWS] for start in range(0, len(rows), STATEMENT_ROWS)]
