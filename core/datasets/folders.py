"""Class folders: the innermost folder that a file came in is the class of its image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from core.auth import Caller
from core.datasets.labels import labels_of, take_turn, write_labels
from core.datasets.references import FoundImages, Reference, find_images
from core.db.models import Dataset
from core.images.recording import (
    MAX_NAME_BYTES,
    files_with_images,
    record_labels,
    stored_name,
)
from core.images.report import ReportLine

SEPARATORS = re.compile(r"[/\\]")
MAX_CLASS_NAME = 200
# A longer name is cut, perhaps before the last character that has room.
LONGEST_NAME = MAX_NAME_BYTES - 4
CUT = f"the name has more than {LONGEST_NAME} bytes and may be cut, so its folder is not known"


@dataclass(frozen=True, slots=True)
class FolderReport:
    """How many images have the class of their folder now, and a line for each that has not."""

    labelled: int
    lines: list[ReportLine]


def label_by_folder(
    session: Session,
    caller: Caller,
    dataset: Dataset,
    import_id: UUID,
    *,
    max_classes: int,
) -> FolderReport:
    """Label the images of an import, all of which are recorded, by their folders.

    Files that became no image count for nothing. An image in two folders gets neither class, and
    one that has another label keeps it: both are lines of the import's report. Again is the same
    as once.

    Raises:
        LabelsInvalid: The dataset would have too many classes.
    """
    take_turn(session, dataset)
    files = files_with_images(session, import_id)
    found = find_images(session, dataset.id, [Reference(image_id=known) for _, known in files])
    classes, lines = _classes(found, files)
    before = labels_of(session, classes)
    labels: dict[UUID, str | None] = {}
    for image_id, named in classes.items():
        folder, name = next(iter(named.items()))
        if len(named) > 1:
            lines.append(_two_classes(named, image_id))
        elif before.get(image_id, folder) != folder:
            lines.append(_other_label(name, folder, before[image_id], image_id))
        else:
            labels[image_id] = folder
    write_labels(session, caller, dataset, labels, max_classes=max_classes)
    record_labels(session, import_id, labelled=len(labels), lines=lines)
    return FolderReport(len(labels), lines)


def _classes(
    found: FoundImages, files: Sequence[tuple[str, UUID]]
) -> tuple[dict[UUID, dict[str, str]], list[ReportLine]]:
    """Of each image its folders, with a file in each; and folders whose names are no classes."""
    classes: dict[UUID, dict[str, str]] = defaultdict(dict)
    lines: list[ReportLine] = []
    for name, image_id in files:
        folder = class_folder(name)
        if folder is None or image_id not in found.by_id:  # it may be deleted by now
            continue
        if len(name.encode()) > LONGEST_NAME:
            lines.append(_unlabelled(name, "NameTooLong", CUT, image_id))
        elif 1 <= len(folder) <= MAX_CLASS_NAME:
            classes[image_id].setdefault(folder, name)
        else:
            lines.append(_no_class(name, folder, image_id))
    return classes, lines


def class_folder(name: str) -> str | None:
    """The innermost folder of a file's name, as a class is kept; None at the top."""
    *folders, _ = SEPARATORS.split(name)
    named = [folder for folder in folders if folder not in ("", ".")]
    return stored_name(named[-1]).strip() if named else None


def _unlabelled(file: str, code: str, detail: str, image_id: UUID) -> ReportLine:
    return ReportLine(stored_name(file), "unlabelled", code, detail, image_id)


def _no_class(file: str, folder: str, image_id: UUID) -> ReportLine:
    detail = f"the folder's name: found {len(folder)} characters; a class has 1 to {MAX_CLASS_NAME}"
    return _unlabelled(file, "ClassNameInvalid", detail, image_id)


def _two_classes(named: dict[str, str], image_id: UUID) -> ReportLine:
    places = [f"{folder!r} ({stored_name(file)})" for folder, file in named.items()]
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    detail = f"the image lies in {len(places)} class folders, {', '.join(places[:3])}{more}; "
    detail += "it got none of these labels"
    return _unlabelled(next(iter(named.values())), "TwoClasses", detail, image_id)


def _other_label(file: str, folder: str, label: str, image_id: UUID) -> ReportLine:
    detail = f"the image has the label {label!r}, its folder is {folder!r}; the label was kept"
    return _unlabelled(file, "OtherLabel", detail, image_id)
