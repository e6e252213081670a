"""Labels and given splits: set by image, all or none or those that are right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum, auto
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import delete, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from core.auth import Caller
from core.datasets.history import Change, record_changes
from core.datasets.references import Reference, find_images
from core.datasets.snapshot import Split
from core.db.arrays import rows_of
from core.db.labelling import ImageSplit
from core.db.models import Dataset, Label
from core.errors import LabelsInvalid

SHOWN_PROBLEMS = 100
REPORTED_PROBLEMS = 10_000

Field = Literal["label", "split"]
Wanted = dict[Field, str | None]


class Unchanged(Enum):
    """What a line says of a field that it does not name."""

    UNCHANGED = auto()


UNCHANGED: Final = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True)
class Assignment:
    """The label, the split or both of an image; None takes it away."""

    line: int
    image: Reference
    label: str | Unchanged | None = UNCHANGED
    split: Split | Unchanged | None = UNCHANGED

    @property
    def wanted(self) -> Wanted:
        """What is to be changed."""
        wanted: Wanted = {}
        if self.label is not UNCHANGED:
            wanted["label"] = self.label
        if self.split is not UNCHANGED:
            wanted["split"] = self.split
        return wanted


@dataclass(frozen=True, slots=True)
class LineProblem:
    """A line that is wrong, and why."""

    line: int
    detail: str


@dataclass(frozen=True, slots=True)
class LabelReport:
    """How many labels and splits were set and taken away; which lines were left out and why."""

    labelled: int
    removed: int
    splits: int
    rejected: int
    problems: list[LineProblem]
    class_names: list[str]


def put_labels(
    session: Session,
    caller: Caller,
    dataset: Dataset,
    lines: Sequence[Assignment | LineProblem],
    *,
    max_classes: int,
    partial: bool = False,
) -> LabelReport:
    """Set labels and splits; when one line is wrong, nothing changes, or with `partial` the others.

    Args:
        session: The transaction of the request.
        caller: Who asks; the history of labels names the key.
        dataset: The caller's.
        lines: What to set, and lines that were found wrong before.
        max_classes: Most classes of a dataset.
        partial: Whether to leave out wrong lines, instead of refusing all.

    Raises:
        LabelsInvalid: Images are unknown, ambiguous or named twice with different classes
            (every line is listed), or there are too many classes.
    """
    take_turn(session, dataset)
    wanted, problems = _choose(session, dataset.id, lines)
    if problems and not partial:
        raise LabelsInvalid(
            f"labels: {len(problems)} of {len(lines)} lines are wrong, nothing was changed; "
            f"the first: line {problems[0].line}: {problems[0].detail}",
            problems=[asdict(problem) for problem in problems[:SHOWN_PROBLEMS]],
        )
    labels = {image_id: w["label"] for image_id, w in wanted.items() if "label" in w}
    splits = {image_id: w["split"] for image_id, w in wanted.items() if "split" in w}
    write_labels(session, caller, dataset, labels, max_classes=max_classes)
    _replace(session, ImageSplit.split, dataset.id, splits)
    removed = sum(label is None for label in labels.values())
    return LabelReport(
        labelled=len(labels) - removed,
        removed=removed,
        splits=len(splits),
        rejected=len(problems),
        problems=problems[:REPORTED_PROBLEMS],
        class_names=class_names(session, dataset.id),
    )


def take_turn(session: Session, dataset: Dataset) -> None:
    """Wait until nobody else changes labels of the dataset, and hold others off."""
    # Two that set and remove the same labels could wait for each other, and the history is
    # written from what is read here.
    turn = select(Dataset.id).where(Dataset.id == dataset.id).with_for_update(key_share=True)
    session.execute(turn)


def labels_of(session: Session, image_ids: Collection[UUID]) -> dict[UUID, str]:
    """The classes of those of the images that have one."""
    asked = rows_of(image_id=("uuid", list(image_ids)))
    labels = select(Label.image_id, Label.class_name)
    rows = session.execute(labels.join(asked, asked.c.image_id == Label.image_id))
    return {row.image_id: row.class_name for row in rows}


def class_names(session: Session, dataset_id: UUID) -> list[str]:
    """The distinct classes of a dataset in the order of their code points."""
    found = session.scalars(
        select(Label.class_name).where(Label.dataset_id == dataset_id).distinct()
    )
    return sorted(found)


def write_labels(
    session: Session,
    caller: Caller,
    dataset: Dataset,
    labels: dict[UUID, str | None],
    *,
    max_classes: int,
) -> None:
    """Set the labels of images of the dataset, whose turn it is, and record what changes.

    Raises:
        LabelsInvalid: The dataset would have too many classes.
    """
    before = labels_of(session, labels)
    changes = [
        Change(image_id, before.get(image_id), label)
        for image_id, label in labels.items()
        if before.get(image_id) != label
    ]
    _replace(session, Label.class_name, dataset.id, {c.image_id: c.to_class for c in changes})
    record_changes(session, caller, dataset.id, changes)
    classes = select(func.count(Label.class_name.distinct())).where(Label.dataset_id == dataset.id)
    if changes and (found := session.scalar(classes) or 0) > max_classes:
        raise LabelsInvalid(f"labels: found {found} classes; at most {max_classes} are allowed")


def _replace(
    session: Session,
    value: InstrumentedAttribute[str],
    dataset_id: UUID,
    wanted: Mapping[UUID, str | None],
) -> None:
    """Put the values into their column, a row an image; the rows of images without one go."""
    table = value.class_
    gone = [image_id for image_id, said in wanted.items() if said is None]
    kept = {image_id: said for image_id, said in wanted.items() if said is not None}
    if gone:
        asked = rows_of(image_id=("uuid", gone))
        session.execute(delete(table).where(table.image_id == asked.c.image_id))
    if kept:
        given = rows_of(image_id=("uuid", list(kept)), said=("text", list(kept.values())))
        rows = select(given.c.image_id, literal(dataset_id), given.c.said)
        put = insert(table).from_select(["image_id", "dataset_id", value.key], rows)
        fresh: dict[str, Any] = {value.key: put.excluded[value.key]}
        if table is Label:
            fresh["updated_at"] = func.clock_timestamp()
        session.execute(put.on_conflict_do_update(index_elements=["image_id"], set_=fresh))


def _choose(
    session: Session, dataset_id: UUID, lines: Sequence[Assignment | LineProblem]
) -> tuple[dict[UUID, Wanted], list[LineProblem]]:
    """What is wanted of each image, and the lines that are wrong, in their order."""
    assignments = [line for line in lines if isinstance(line, Assignment)]
    problems = [line for line in lines if isinstance(line, LineProblem)]
    found = find_images(session, dataset_id, [a.image for a in assignments])
    by_image: dict[UUID, list[Assignment]] = defaultdict(list)
    for assignment in assignments:
        try:
            by_image[found.meant(assignment.image)].append(assignment)
        except LabelsInvalid as error:
            problems.append(LineProblem(assignment.line, str(error)))
    wanted: dict[UUID, Wanted] = {}
    for image_id, group in by_image.items():
        contradictions = dict(_contradictions(group)) if len(group) > 1 else {}
        problems += (LineProblem(a.line, contradictions[a]) for a in contradictions)
        # What is left agrees: each value that is contradicted has gone with its line.
        rest = [a.wanted for a in group if a not in contradictions]
        if rest:
            wanted[image_id] = {field: said for one in rest for field, said in one.items()}
    return wanted, sorted(problems, key=lambda problem: problem.line)


def _contradictions(group: Sequence[Assignment]) -> Iterator[tuple[Assignment, str]]:
    """Each line that says something else of its image than another one does, in words."""
    fields: tuple[Field, ...] = ("label", "split")
    for field in fields:
        said = [(a, a.wanted[field]) for a in group if field in a.wanted]
        first = next(iter(said), None)
        other = next((one for one in said if first and one[1] != first[1]), None)
        if first is None or other is None:
            continue
        for assignment, value in said:
            against, opposite = other if value == first[1] else first
            yield (
                assignment,
                f"{assignment.image}: the {field} {value!r} contradicts {opposite!r} "
                f"of line {against.line}, which names the same image",
            )
