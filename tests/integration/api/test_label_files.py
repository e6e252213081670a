"""Labels over HTTP: by every way to name an image, in part, and back as a file."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from core.config import Settings
from core.db.table import Table
from tests.integration.api.problems import assert_problem, picture, pictures
from tests.unit.api.test_label_lines import ODD
from tests.unit.images.archive_samples import tar_of

Add = Callable[..., str]
CSV = {"content-type": "text/csv"}
NOWHERE = "00000000-0000-4000-8000-000000000000"
# As an archive may have them; some come changed, and are listed as they are kept.
NAMES = [" a.png", "b.png ", "=1+1.png", "c\",'.png", "é/ü.png", "e\u0301.png", "././d.png"]
NAMES += ["数据/標籤.png", "e\x01\u0301.png", "😀.png", "tab\t.png", "x/y.png", "z/y.png", "dot"]
# At most twenty, as the settings of the tests have it.
CLASSES = [*ODD, "line\nbreak", "a\rb", "標籤", "تصنيف", "\x1cx\x1f", "e\u0301"]


@pytest.fixture
def dataset(client: TestClient, add_dataset: Add) -> Iterator[str]:
    dataset_id = add_dataset(pictures(6))
    yield dataset_id
    client.delete(f"/datasets/{dataset_id}").raise_for_status()


@pytest.fixture
def images(client: TestClient, dataset: str) -> dict[str, dict[str, Any]]:
    """The images of the dataset by name."""
    items = client.get(f"/datasets/{dataset}/images").json()["items"]
    return {item["names"][0]: item for item in items}


def put(client: TestClient, dataset: str, body: Any, **query: Any) -> dict[str, Any]:
    url = f"/datasets/{dataset}/labels"
    sent = {"content": body, "headers": CSV} if isinstance(body, bytes) else {"json": body}
    answer = client.put(url, params=query, **sent)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def labels_file(client: TestClient, dataset: str) -> bytes:
    answer = client.get(f"/datasets/{dataset}/labels.csv")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="labels.csv"'
    assert answer.headers["content-length"] == str(len(answer.content))
    return answer.content


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def labels_of(client: TestClient, dataset: str) -> dict[str, tuple[str, str]]:
    """Label and split by file name, of the images that have one of them."""
    rows = rows_of(labels_file(client, dataset))
    return {row["file"]: (row["label"], row["split"]) for row in rows}


def test_every_way_to_name_an_image(
    client: TestClient, dataset: str, images: dict[str, dict[str, Any]]
) -> None:
    sha256 = images["p1.png"]["sha256"]
    assert sha256 == hashlib.sha256(picture(1)).hexdigest()
    both = {"image_id": images["p2.png"]["id"], "file": "p2.png", "sha256": None}
    body = {
        "labels": [
            {"file": "p0.png", "label": "name"},
            {"sha256": sha256.upper(), "label": "hash"},
            {**both, "label": "several"},
        ]
    }
    assert put(client, dataset, body)["labelled"] == 3
    lines = f"sha256,image_id,label\n{images['p3.png']['sha256']},,hash\n"
    lines += f",{images['p4.png']['id']},id\n"
    assert put(client, dataset, lines.encode())["labelled"] == 2
    found = {name: label for name, (label, _) in labels_of(client, dataset).items()}
    expected = {"p0.png": "name", "p1.png": "hash", "p2.png": "several"}
    assert found == {**expected, "p3.png": "hash", "p4.png": "id"}


def test_ways_that_disagree(
    client: TestClient, dataset: str, images: dict[str, dict[str, Any]]
) -> None:
    one, two = images["p0.png"], images["p1.png"]
    wrong = [
        {"image_id": one["id"], "sha256": two["sha256"]},
        {"image_id": one["id"], "file": "p1.png"},
        {"sha256": one["sha256"], "file": "p1.png"},
        {"image_id": NOWHERE, "sha256": one["sha256"], "file": "p0.png"},
        {"image_id": one["id"], "sha256": "0" * 64},
    ]
    body = {"labels": [{**line, "label": "x"} for line in wrong]}
    answer = client.put(f"/datasets/{dataset}/labels", json=body)
    faults = assert_problem(answer, 422, "5 of 5 lines are wrong")["errors"]
    said = [fault["detail"] for fault in faults]
    ids, hashes = f"image_id {one['id']}", f"sha256 {one['sha256']}"
    differ = "they name different images; one of them is enough"
    assert said == [
        f"{ids} and sha256 {two['sha256']}: {differ}",
        f"{ids} and file 'p1.png': {differ}",
        f"{hashes} and file 'p1.png': {differ}",
        f"image_id {NOWHERE}: the dataset has no such image",
        f"sha256 {'0' * 64}: the dataset has no such image",
    ]


def test_an_id_tells_images_of_one_name_apart(client: TestClient, add_dataset: Add) -> None:
    dataset_id = add_dataset({"a/x.png": picture(1), "b/x.png": picture(2)})
    sha256 = hashlib.sha256(picture(2)).hexdigest()
    put(client, dataset_id, {"labels": [{"sha256": sha256, "file": "x.png", "label": "b"}]})
    assert labels_of(client, dataset_id) == {"b/x.png": ("b", "")}


def test_in_part_by_csv(client: TestClient, dataset: str) -> None:
    put(client, dataset, {"labels": [{"file": "p5.png", "label": "old"}]})
    lines = ["file,label,split", "p0.png,a,test", "nope.png,a,", "p1.png,b,nowhere", "p2.png,b,"]
    lines += ["p2.png,c,", "p2.png,,train", "p3.png", "p4.png,,", "p5.png,new,"]
    body = "\n".join(lines).encode()
    refused = client.put(f"/datasets/{dataset}/labels", content=body, headers=CSV)
    assert_problem(refused, 422, "6 of 9 lines are wrong, nothing was changed")
    assert labels_of(client, dataset) == {"p5.png": ("old", "")}
    report = put(client, dataset, body, partial=True)
    problems = {problem["line"]: problem["detail"] for problem in report.pop("problems")}
    assert report == {
        "labelled": 2,
        "removed": 0,
        "splits": 2,
        "rejected": 6,
        "class_names": ["a", "new"],
    }
    assert list(problems) == [3, 4, 5, 6, 8, 9]
    assert "no such image" in problems[3]
    assert "found 'nowhere'" in problems[4]
    assert "'b' contradicts 'c' of line 6" in problems[5]
    assert "'c' contradicts 'b' of line 5" in problems[6]
    assert "fewer than the 3 columns" in problems[8]
    assert "empty" in problems[9]
    expected = {"p0.png": ("a", "test"), "p2.png": ("", "train"), "p5.png": ("new", "")}
    assert labels_of(client, dataset) == expected


def test_in_part_by_json(client: TestClient, dataset: str) -> None:
    body = {
        "labels": [
            {"file": "p0.png", "label": "a"},
            "p1.png",
            {"file": "p1.png", "label": "x" * 201},
            {"file": "p1.png", "label": "a", "colour": "red"},
            {"label": "a"},
            {"file": "p2.png", "label": None},
        ]
    }
    assert client.put(f"/datasets/{dataset}/labels", json=body).status_code == 422
    assert labels_of(client, dataset) == {}
    report = put(client, dataset, body, partial=True)
    counted = report["labelled"], report["removed"], report["rejected"]
    assert counted == (1, 1, 4)
    assert [problem["line"] for problem in report["problems"]] == [2, 3, 4, 5]
    assert "colour: " in report["problems"][2]["detail"]


def test_all_wrong_lines_are_counted_and_the_first_are_listed(
    client: TestClient, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.datasets.labels.REPORTED_PROBLEMS", 2)
    body = {"labels": [{"file": f"no{number}.png", "label": "a"} for number in range(4)]}
    report = put(client, dataset, body, partial=True)
    assert (report["rejected"], report["class_names"]) == (4, [])
    assert [problem["line"] for problem in report["problems"]] == [1, 2]


@pytest.mark.usefixtures("unchanged")
def test_what_is_no_list_of_labels_is_refused_in_part_as_well(
    client: TestClient, dataset_id: str
) -> None:
    url = f"/datasets/{dataset_id}/labels?partial=true"
    for body, status in ((b"[]", 422), (b'{"labels": []}', 422), (b"{", 400)):
        answer = client.put(url, content=body, headers={"content-type": "application/json"})
        assert_problem(answer, status)
    assert_problem(client.put(url, content=b"a,b\n1,2\n", headers=CSV), 400, "columns")
    many = {"labels": [{"file": "p0.png", "label": str(n)} for n in range(401)]}
    assert_problem(client.put(url, json=many), 422, "found 401; at most 400")


def test_too_many_classes_are_refused_in_part_as_well(client: TestClient, add_dataset: Add) -> None:
    dataset_id = add_dataset(pictures(21))
    lines = [{"file": f"p{number}.png", "label": str(number)} for number in range(21)]
    answer = client.put(f"/datasets/{dataset_id}/labels?partial=true", json={"labels": lines})
    assert_problem(answer, 422, "found 21 classes; at most 20")
    assert labels_of(client, dataset_id) == {}


@pytest.fixture
def awkward(client: TestClient, add_dataset: Add) -> str:
    """A dataset with odd names, odd classes, and splits with and without a label."""
    dataset_id = add_dataset()
    files = {name: picture(number) for number, name in enumerate(NAMES)} | pictures(30)
    client.post(f"/datasets/{dataset_id}/images", content=tar_of(files)).raise_for_status()
    items = client.get(f"/datasets/{dataset_id}/images").json()["items"]
    assert len(items) == 30
    pairs = zip(items, CLASSES, strict=False)
    labels: list[dict[str, Any]] = [{"image_id": i["id"], "label": name} for i, name in pairs]
    labels[0] |= {"split": "test"}
    labels += [{"image_id": items[29]["id"], "split": "train"}]
    labels += [{"image_id": items[28]["id"], "split": "validation"}]
    report = put(client, dataset_id, {"labels": labels})
    assert (report["labelled"], report["splits"]) == (len(CLASSES), 3)
    assert report["class_names"] == sorted(CLASSES)
    return dataset_id


def test_the_file_is_taken_as_it_is(
    client: TestClient, awkward: str, session: Callable[[], Session]
) -> None:
    """PUT, GET, PUT, GET: the second time nothing changes."""

    def stored() -> list[list[str]]:
        tables = (Table.metadata.tables[name] for name in ("labels", "label_changes"))
        with session() as opened:
            return [sorted(map(str, opened.execute(table.select()))) for table in tables]

    before, content = stored(), labels_file(client, awkward)
    rows = rows_of(content)
    assert sorted(row["label"] for row in rows) == sorted([*CLASSES, "", ""])
    assert sum(row["split"] != "" for row in rows) == 3
    again = put(client, awkward, content)
    assert (again["labelled"], again["splits"], again["rejected"]) == (len(CLASSES), 3, 0)
    assert labels_file(client, awkward) == content
    assert stored() == before


def test_the_file_names_the_images_of_another_dataset_by_their_content(
    client: TestClient, add_dataset: Add, awkward: str
) -> None:
    columns = ["sha256", "label", "split"]
    rows = [[row[name] for name in columns] for row in rows_of(labels_file(client, awkward))]
    lines = io.StringIO(newline="")
    csv.writer(lines).writerows([columns, *rows])
    other = add_dataset({f"{number}": picture(number) for number in range(30)})
    put(client, other, lines.getvalue().encode())
    there = [[row[name] for name in columns] for row in rows_of(labels_file(client, other))]
    assert sorted(there) == sorted(rows)


def test_a_file_that_does_not_stay_in_memory(
    client: TestClient, add_dataset: Add, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.downloads.MEMORY_BYTES", 100_000)
    names = {f"{'n' * 900}{number}.png": picture(number) for number in range(290)}
    dataset_id = add_dataset(names)
    classes = {name: chr(0x4E00 + number % 9) * 200 for number, name in enumerate(names)}
    pairs = list(classes.items())
    for start in range(0, len(pairs), 150):
        part = [{"file": n, "label": c} for n, c in pairs[start : start + 150]]
        put(client, dataset_id, {"labels": part})
    content = labels_file(client, dataset_id)
    assert len(content) > 300_000
    assert {row["file"]: row["label"] for row in rows_of(content)} == classes
    assert not list((settings.data_dir / "downloads").iterdir())


def test_no_labels_are_a_file_as_well(client: TestClient, dataset: str) -> None:
    assert labels_file(client, dataset) == b"image_id,sha256,file,label,split\r\n"
    assert_problem(client.get(f"/datasets/{NOWHERE}/labels.csv"), 404, NOWHERE)
