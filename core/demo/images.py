"""Where the demo's images come from: scikit-learn's handwritten digits, or a folder and a CSV."""

from __future__ import annotations

import csv
import importlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from core.errors import Invalid
from core.images.formats import SUFFIXES

SHOWN_NAMES = 3


class ImagesUnusable(Invalid):
    """The folder of images or the file of labels cannot be used as it stands."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An image file; `name` is what it is uploaded as: its path in its folder, with slashes."""

    name: str
    path: Path
    label: str | None = None


def write_digits(folder: Path) -> list[Sample]:
    """Write the 1,797 digits of `sklearn.datasets.load_digits` as 8×8 greyscale PNG files."""
    # Not imported on top: it takes a second, which the other commands need not wait for.
    digits = importlib.import_module("sklearn.datasets").load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for index, (ink, target) in enumerate(zip(digits.data, digits.target, strict=True)):
        path = folder / f"{index:04d}.png"
        grey = bytes(round(value * 255 / 16) for value in ink.tolist())
        Image.frombytes("L", (8, 8), grey).save(path)
        samples.append(Sample(f"digits/{path.name}", path, str(target)))
    return samples


def read_folder(folder: Path, labels_csv: Path) -> list[Sample]:
    """The images of a folder and all that is below it, with the labels of a CSV file.

    Args:
        folder: Searched for image files by their suffix; hidden files are left out.
        labels_csv: UTF-8 with the columns `file` (its path in the folder, or its bare name) and
            `label`; a row without a label counts for nothing.

    Raises:
        ImagesUnusable: There is no such folder or file, there are no images, the columns are
            missing, a file is unknown or ambiguous, or fewer than two classes have labels.
    """
    samples = _find(folder)
    by_name = {sample.name: sample for sample in samples}
    rows = _read_rows(labels_csv)
    labels = _match(rows, by_name, labels_csv)
    classes = sorted(set(labels.values()))
    if len(classes) < 2:
        found = f"one class, {classes[0]!r}" if classes else "no labels"
        raise ImagesUnusable(
            f"--labels: found {found} in {labels_csv}; at least two classes are needed"
        )
    return [replace(sample, label=labels.get(sample.name)) for sample in samples]


def _find(folder: Path) -> list[Sample]:
    if not folder.is_dir():
        raise ImagesUnusable(f"--data: there is no folder {folder}")
    samples = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if hidden or path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        name = relative.as_posix()
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise ImagesUnusable(f"--data: rename the file {name!r}; its name is not UTF-8")
        samples.append(Sample(name, path))
    if not samples:
        raise ImagesUnusable(f"--data: found no {', '.join(SUFFIXES)} files in {folder}")
    return samples


def _read_rows(labels_csv: Path) -> list[tuple[str, str]]:
    try:
        with labels_csv.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = [column.strip().lower() for column in reader.fieldnames or []]
            if not {"file", "label"} <= set(columns):
                raise ImagesUnusable(
                    f"--labels: the first line of {labels_csv} names the columns {columns}; "
                    "needed are file and label"
                )
            reader.fieldnames = columns
            rows = [((row["file"] or "").strip(), (row["label"] or "").strip()) for row in reader]
    except OSError as error:
        raise ImagesUnusable(f"--labels: cannot read {labels_csv}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ImagesUnusable(f"--labels: {labels_csv} is not CSV in UTF-8: {error}") from None
    return [(file.removeprefix("./"), label) for file, label in rows if label]


def _match(
    rows: list[tuple[str, str]], by_name: Mapping[str, Sample], labels_csv: Path
) -> dict[str, str]:
    by_bare_name: dict[str, list[str]] = defaultdict(list)
    for name in by_name:
        by_bare_name[name.rpartition("/")[2]].append(name)
    labels: dict[str, str] = {}
    unknown = []
    for file, label in rows:
        names = [file] if file in by_name else by_bare_name.get(file, [])
        if not names:
            unknown.append(file)
            continue
        if len(names) > 1:
            raise ImagesUnusable(
                f"--labels: {file!r} may be {names[0]!r} or {names[1]!r}; write the path"
            )
        if labels.setdefault(names[0], label) != label:
            raise ImagesUnusable(
                f"--labels: {names[0]!r} is both {labels[names[0]]!r} and {label!r}"
            )
    if unknown:
        shown = ", ".join(map(repr, unknown[:SHOWN_NAMES]))
        more = f" and {len(unknown) - SHOWN_NAMES} more" if len(unknown) > SHOWN_NAMES else ""
        raise ImagesUnusable(
            f"--labels: {labels_csv} names files that are not in the folder: {shown}{more}"
        )
    return labels
