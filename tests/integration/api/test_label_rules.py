"""Labels: all or nothing, whatever the way an image is named."""

from __future__ import annotations

import concurrent.futures
import unicodedata
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.orm import Session

from core.auth import local_caller
from core.datasets.labels import Assignment, LabelReport, class_names, put_labels
from core.datasets.references import Reference
from core.db.models import Dataset, ImageName
from core.errors import LabelsInvalid
from tests.integration.api.problems import picture

Put = Callable[..., LabelReport]
FILES = {
    "a/x.png": picture(1),
    "b/x.png": picture(2),
    "y.png": picture(3),
    "deep/er/z.png": picture(4),
    unicodedata.normalize("NFC", "é.png"): picture(5),
}


@pytest.fixture
def dataset_id(add_dataset: Callable[..., str]) -> UUID:
    return UUID(add_dataset(FILES))


@pytest.fixture
def put(session: Callable[[], Session], dataset_id: UUID) -> Put:
    """Labels by (reference, class) pairs, in a transaction of their own."""

    def putting(*pairs: tuple[str | UUID, str | None], max_classes: int = 10) -> LabelReport:
        assignments = [
            Assignment(
                line,
                Reference(image_id=named) if isinstance(named, UUID) else Reference(file=named),
                name,
            )
            for line, (named, name) in enumerate(pairs, 1)
        ]
        with session() as opened, opened.begin():
            dataset = opened.get_one(Dataset, dataset_id)
            caller = local_caller(opened)
            return put_labels(opened, caller, dataset, assignments, max_classes=max_classes)

    return putting


@pytest.fixture
def classes(session: Callable[[], Session], dataset_id: UUID) -> Callable[[], list[str]]:
    def found() -> list[str]:
        with session() as opened:
            return class_names(opened, dataset_id)

    return found


def image_of(session: Callable[[], Session], dataset_id: UUID, name: str) -> UUID:
    with session() as opened:
        rows: Any = opened.query(ImageName).filter_by(dataset_id=dataset_id, name=name)
        return UUID(str(rows.one().image_id))


def test_by_full_name_by_last_part_and_by_id(
    put: Put, session: Callable[[], Session], dataset_id: UUID
) -> None:
    y = image_of(session, dataset_id, "y.png")
    report = put(("a/x.png", "one"), ("z.png", "two"), (y, "three"))
    assert (report.labelled, report.removed) == (3, 0)
    assert report.class_names == ["one", "three", "two"]
    again = put(("a/x.png", "two"), ("y.png", "two"))
    assert again.class_names == ["two"]


def test_names_match_in_either_unicode_form(put: Put) -> None:
    report = put((unicodedata.normalize("NFD", "é.png"), "one"), ("./y.png", "two"))
    assert report.labelled == 2


def test_removal(put: Put, classes: Callable[[], list[str]]) -> None:
    put(("y.png", "one"), ("z.png", "two"))
    report = put(("y.png", None), ("a/x.png", None))
    assert (report.labelled, report.removed, report.class_names) == (0, 2, ["two"])
    assert classes() == ["two"]


def test_the_same_twice_is_once(put: Put) -> None:
    assert put(("y.png", "one"), ("y.png", "one")).labelled == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("x.png", "new"), "file 'x.png': 2 images have this name; use image_id or sha256"),
        (("nope.png", "new"), "file 'nope.png': the dataset has no such image"),
        (("er/z.png", "new"), "no such image"),
        (("%", "new"), "no such image"),
        (("_.png", "new"), "no such image"),
        ((UUID(int=7), "new"), "image_id 00000000.*no such image"),
    ],
)
def test_one_wrong_line_changes_nothing(
    put: Put, classes: Callable[[], list[str]], wrong: Any, words: str
) -> None:
    put(("z.png", "old"))
    said = rf"1 of 3 lines are wrong, nothing was changed; the first: line 2: .*{words}"
    with pytest.raises(LabelsInvalid, match=said) as raised:
        put(("y.png", "good"), wrong, ("z.png", "changed"))
    assert [problem["line"] for problem in raised.value.problems] == [2]
    assert classes() == ["old"]


@pytest.mark.parametrize("second", ["new", None])
def test_all_lines_of_a_contradiction_are_named(
    put: Put, classes: Callable[[], list[str]], second: str | None
) -> None:
    put(("z.png", "old"))
    with pytest.raises(LabelsInvalid, match=r"3 of 4 lines .* nothing was changed") as raised:
        put(("y.png", "good"), ("z.png", "changed"), ("./y.png", second), ("y.png", "good"))
    assert [(problem["line"], problem["detail"]) for problem in raised.value.problems] == [
        (
            line,
            f"file {file!r}: the label {said!r} contradicts {other!r} of line {against}, "
            "which names the same image",
        )
        for line, file, said, other, against in (
            (1, "y.png", "good", second, 3),
            (3, "./y.png", second, "good", 1),
            (4, "y.png", "good", second, 3),
        )
    ]
    assert classes() == ["old"]


def test_too_many_classes_change_nothing(put: Put, classes: Callable[[], list[str]]) -> None:
    with pytest.raises(LabelsInvalid, match="found 2 classes; at most 1"):
        put(("y.png", "one"), ("z.png", "two"), max_classes=1)
    assert classes() == []


def test_many_at_once_do_not_wait_for_each_other(
    put: Put, classes: Callable[[], list[str]]
) -> None:
    """Setting and taking away in opposite orders; Postgres would end a deadlock with an error."""
    ways = [("y.png", "one"), ("z.png", None)], [("z.png", "two"), ("y.png", None)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(put, *ways[n % 2]) for n in range(40)]:
            future.result()
    assert classes() in (["one"], ["two"])
