"""`fewlabels samples`: real images to try the service with, ready to be uploaded."""

from __future__ import annotations

import csv
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.demo.draw import draw_digits
from core.demo.images import Sample, write_digits
from core.errors import Invalid

LABELS_PER_CLASS = 5
# Zip files carry dates; a fixed one makes the same bytes every time.
DATE = (2000, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Samples:
    """What was written: an archive to upload, its few labels, and a folder of other images."""

    archive: Path
    labels: Path
    held_out: Path


def write_samples(folder: Path) -> Samples:
    """Write scikit-learn's digits as `digits.zip`, `labels.csv` and `heldout/CLASS/*.png`.

    The archive has 1,297 images, the CSV the labels of five of each class, the folder 50 other
    images of each class. Writing again gives the same bytes.

    Raises:
        Invalid: The folder cannot be written.
    """
    written = Samples(folder / "digits.zip", folder / "labels.csv", folder / "heldout")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            draw = draw_digits(write_digits(Path(scratch)), per_class=LABELS_PER_CLASS, seed=0)
            _write_archive(written.archive, draw.uploaded)
            _write_labels(written.labels, draw.training)
            _write_by_class(written.held_out, draw.held_out)
    except OSError as error:
        raise Invalid(f"{folder} cannot be written ({error.strerror})") from error
    return written


def _write_archive(path: Path, samples: Sequence[Sample]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for sample in sorted(samples, key=lambda sample: sample.name):
            archive.writestr(zipfile.ZipInfo(sample.name, DATE), sample.path.read_bytes())


def _write_labels(path: Path, samples: Sequence[Sample]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("file", "label"))
        rows.writerows((sample.name, sample.label) for sample in samples)


def _write_by_class(folder: Path, samples: Sequence[Sample]) -> None:
    for sample in samples:
        assert sample.label is not None  # every digit has one
        target = folder / sample.label / sample.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sample.path, target)
