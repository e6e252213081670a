"""`fewlabels samples`: images to upload, a few labels, and others to try the model with."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from core.cli import app
from core.samples import Samples, write_samples


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return write_samples(tmp_path_factory.mktemp("samples") / "new" / "folder")


def test_there_are_enough_images_few_labels_and_others_to_test_with(written: Samples) -> None:
    with zipfile.ZipFile(written.archive) as archive:
        names = archive.namelist()
        contents = {archive.read(name) for name in names}
    assert len(names) == len(set(names)) == 1297
    rows = list(csv.DictReader(io.StringIO(written.labels.read_text())))
    assert Counter(row["label"] for row in rows) == dict.fromkeys("0123456789", 5)
    assert {row["file"] for row in rows} < set(names)
    held_out = sorted(written.held_out.glob("*/*.png"))
    assert Counter(path.parent.name for path in held_out) == dict.fromkeys("0123456789", 50)
    assert not {path.read_bytes() for path in held_out} & contents


def test_they_are_pictures_of_digits(written: Samples) -> None:
    for path in written.held_out.glob("0/*.png"):
        with Image.open(path) as image:
            assert (image.format, image.size, image.mode) == ("PNG", (8, 8), "L")
            ink = image.tobytes()
            assert (min(ink), max(ink) > 200) == (0, True)


def test_writing_again_gives_the_same_bytes(written: Samples, tmp_path: Path) -> None:
    again = write_samples(tmp_path)
    for path in (again.archive, again.labels, *again.held_out.glob("*/*.png")):
        assert (
            path.read_bytes() == (written.labels.parent / path.relative_to(tmp_path)).read_bytes()
        )


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = CliRunner().invoke(app, ["samples", str(tmp_path / "file")])
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
