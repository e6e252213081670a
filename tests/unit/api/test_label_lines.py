"""Labels as CSV: what is written is read as it was, whatever stands in names and classes."""

from __future__ import annotations

import hashlib
import io
import random
import re
from uuid import UUID

import pytest

from api.label_lines import lines_of_csv, write_csv
from core.datasets.export import MarkedImage
from core.datasets.labels import UNCHANGED, Assignment, LineProblem
from core.datasets.references import Reference

AWKWARD = [*",;\"'\n\r\t =+-@|\\/:#%`", "\r\n", "\x01", "\x1c", "\x1f", "\x7f", "\x85", "\xa0"]
AWKWARD += [*"\u200b\u2028\u2029\u202e\u3000\ufeff\ufffd\uffff", "é", "e\u0301", "ß", "I\u0307"]
AWKWARD += [
    *"字数据標籤ラベルتصنيفתוויתमानक",
    "🔩",
    "👩\u200d🔧",
    "\U0010ffff",
    "null",
    "None",
    "NA",
]
ODD = ["=1+1", "@SUM(A1)", "+1", "-1", '"', '""', "a,b", ",", "'", "\ufeff", "\x1c", "0", "a" * 200]


def some_text(chance: random.Random, most: int) -> str:
    pieces = [*AWKWARD, *"abcXYZ019"]
    return "".join(chance.choice(pieces) for _ in range(chance.randint(1, most)))


def as_stored(label: str) -> str:
    """As pydantic trims it: Unicode's white space, which is less than what Python strips."""
    return label.strip("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\u2000\u2001\u2002")


def marked(chance: random.Random, label: str | None) -> MarkedImage:
    sha256 = hashlib.sha256(chance.randbytes(8)).hexdigest()
    split = chance.choice(["train", "validation", "test"])
    given = split if label is None or chance.random() < 0.5 else None
    return MarkedImage(UUID(bytes=chance.randbytes(16)), sha256, some_text(chance, 9), label, given)


def written(images: list[MarkedImage]) -> bytes:
    file = io.BytesIO()
    write_csv(images, file)
    return file.getvalue()


@pytest.mark.parametrize("seed", range(20))
def test_there_and_back(seed: int) -> None:
    chance = random.Random(seed)
    texts = [*ODD, *(as_stored(some_text(chance, 12)) for _ in range(300))]
    images = [marked(chance, text or None) for text in texts]
    read = lines_of_csv(written(images))
    assert len(read) == len(images)
    for line, image in zip(read, images, strict=True):
        assert isinstance(line, Assignment), line
        blank = not (image.file or "").strip(" \t")  # the other columns name the image then
        file = None if blank else image.file
        assert line.image == Reference(image.image_id, image.sha256, file)
        assert line.label == (UNCHANGED if image.label is None else image.label)
        assert line.split == (UNCHANGED if image.split is None else image.split)


def test_an_image_without_names() -> None:
    image = MarkedImage(UUID(int=1), "a" * 64, None, "bolt", None)
    (line,) = lines_of_csv(written([image]))
    assert line == Assignment(2, Reference(UUID(int=1), "a" * 64), "bolt")


def test_no_lines_are_a_file_with_its_columns() -> None:
    assert written([]) == b"image_id,sha256,file,label,split\r\n"


@pytest.mark.parametrize(
    ("row", "image", "label", "split"),
    [
        ("a.png,bolt,test", Reference(file="a.png"), "bolt", "test"),
        (" a.png, bolt , test ", Reference(file=" a.png"), "bolt", "test"),
        ("a.png,bolt,", Reference(file="a.png"), "bolt", UNCHANGED),
        ("a.png, ,train", Reference(file="a.png"), UNCHANGED, "train"),
        ('"a,""b"".png","c\r\nd",', Reference(file='a,"b".png'), "c\r\nd", UNCHANGED),
    ],
)
def test_cells(row: str, image: Reference, label: object, split: object) -> None:
    (line,) = lines_of_csv(f"file,Label, SPLIT\n{row}\n".encode())
    assert isinstance(line, Assignment)
    assert (line.image, line.label, line.split) == (image, label, split)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_separators_of_spreadsheets(mark: str, end: str) -> None:
    rows = (["file", "label"], ["Größe M8/a 1.jpg", "Mutter"], [f'"b{mark}c.png"', '"x,y;z"'])
    body = "".join(mark.join(row) + end for row in rows)
    one, two = lines_of_csv(f"\ufeff{body}".encode())
    assert one == Assignment(2, Reference(file="Größe M8/a 1.jpg"), "Mutter")
    assert two == Assignment(3, Reference(file=f"b{mark}c.png"), "x,y;z")


def test_a_comma_in_the_first_line_is_the_separator() -> None:
    (line,) = lines_of_csv(b"file,label,a;b\nx;y.png,bolt,\n")
    assert line == Assignment(2, Reference(file="x;y.png"), "bolt")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (",bolt,", "line: give at least one of file, sha256 and image_id"),
        ("a.png,,", "label and split: empty; to take a label or split away send JSON with null"),
        ("a.png,bolt,holdout", "split: .*'train', 'validation' or 'test'; found 'holdout'"),
        ("a.png,bolt,Test", "split: .*found 'Test'"),
        ("a.png,bolt,test,", "more than the 3 columns"),
        ("a.png,bolt", "fewer than the 3 columns"),
        ("a.png," + "b" * 201 + ",", "label: .*at most 200"),
        ("a.png,\xa0,", "label: .*at least 1"),
    ],
)
def test_lines_that_are_wrong(row: str, words: str) -> None:
    good, wrong, last = lines_of_csv(f"file,label,split\nx,y,\n{row}\nx,z,\n".encode())
    assert isinstance(good, Assignment)
    assert isinstance(last, Assignment)
    assert isinstance(wrong, LineProblem)
    assert wrong.line == 3
    assert re.search(words, wrong.detail)
