"""Class folders: POST /datasets/{id}/images?labels=folders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from core.datasets.folders import class_folder
from tests.integration.api.problems import assert_problem, picture
from tests.unit.images.archive_samples import tar_of, zip_of

Add = Callable[..., str]


def upload(client: TestClient, dataset: str, files: dict[str, bytes], way: str = "tar") -> Any:
    url = f"/datasets/{dataset}/images?labels=folders"
    if way == "form":
        answer = client.post(url, files=[("files", item) for item in files.items()])
    else:
        answer = client.post(url, content={"tar": tar_of, "zip": zip_of}[way](files))
    assert answer.status_code == 200, answer.text
    return answer.json()


def labels_of(client: TestClient, dataset: str) -> dict[str, str | None]:
    """Labels of all images by the first of their names."""
    items = client.get(f"/datasets/{dataset}/images").json()["items"]
    return {item["names"][0]: item["label"] for item in items}


def history(client: TestClient, dataset: str) -> list[Any]:
    items: list[Any] = client.get(f"/datasets/{dataset}/labels/history").json()["items"]
    return items


@pytest.mark.parametrize("way", ["tar", "zip", "form"])
def test_the_innermost_folder_is_the_label(client: TestClient, add_dataset: Add, way: str) -> None:
    dataset = add_dataset()
    files = {
        "top.png": picture(0),
        "bolt/a.png": picture(1),
        "set/Nut M5/b.png": picture(2),
        "./ washer /c.png": picture(3),
        '标籤, "x"/=1/d.png': picture(4),
        "bolt/again.png": picture(1),
        "bolt/text.png": b"no picture",
    }
    report = upload(client, dataset, files, way)
    assert (report["added"], report["duplicates"], report["rejected"]) == (5, 1, 1)
    assert report["labelled"] == 4
    assert {line["outcome"] for line in report["lines"]} == {"duplicate", "rejected"}
    assert sorted(filter(None, labels_of(client, dataset).values())) == sorted(
        ["bolt", "Nut M5", "washer", "=1"]
    )
    assert labels_of(client, dataset)["top.png"] is None
    assert len(history(client, dataset)) == 4
    again = upload(client, dataset, files, way)
    assert (again["added"], again["labelled"]) == (0, 4)
    assert len(history(client, dataset)) == 4


def test_without_asking_folders_are_names_only(client: TestClient, add_dataset: Add) -> None:
    dataset = add_dataset()
    body = tar_of({"bolt/a.png": picture(1)})
    assert client.post(f"/datasets/{dataset}/images", content=body).json()["labelled"] == 0
    assert labels_of(client, dataset) == {"bolt/a.png": None}
    wrong = client.post(f"/datasets/{dataset}/images?labels=names", content=body)
    assert_problem(wrong, 422, "labels: .*'folders'; found 'names'")


def test_an_image_in_two_folders_gets_neither(client: TestClient, add_dataset: Add) -> None:
    dataset = add_dataset()
    files = {
        "cat/1.png": picture(1),
        "dog/1.png": picture(1),
        "1.png": picture(1),
        "cat/2.png": picture(2),
        "2.png": picture(2),
    }
    report = upload(client, dataset, files)
    assert (report["added"], report["duplicates"], report["labelled"]) == (2, 3, 1)
    (line,) = [line for line in report["lines"] if line["outcome"] == "unlabelled"]
    assert (line["file"], line["code"]) == ("cat/1.png", "TwoClasses")
    assert "'cat' (cat/1.png), 'dog' (dog/1.png); it got none" in line["detail"]
    assert labels_of(client, dataset) == {"1.png": None, "2.png": "cat"}
    (named,) = client.get(f"/datasets/{dataset}/images?name=dog/1.png").json()["items"]
    assert named["id"] == line["image_id"]


def test_the_report_of_the_import_has_those_without_a_label(
    client: TestClient, add_dataset: Add
) -> None:
    dataset = add_dataset()
    files = {"cat/1.png": picture(1), "dog/1.png": picture(1), "cat/2.png": picture(2)}
    report = upload(client, dataset, files)
    url = f"/datasets/{dataset}/imports/{report['import_id']}"
    told = client.get(url).json()
    counts = ("added", "duplicates", "rejected", "labelled", "unlabelled")
    assert [told[count] for count in counts] == [2, 1, 0, 1, 1]
    assert [line["number"] for line in told["lines"]] == [0, 1, 2, 3]
    (line,) = client.get(f"{url}?outcome=unlabelled").json()["lines"]
    assert (line["file"], line["code"], line["number"]) == ("cat/1.png", "TwoClasses", 3)
    assert '"unlabelled"' in client.get(f"{url}/report.jsonl").text.splitlines()[3]


def test_a_label_that_is_there_is_kept(client: TestClient, add_dataset: Add) -> None:
    dataset = add_dataset({"x.png": picture(1), "y.png": picture(2)})
    lines = [{"file": "x.png", "label": "seen by people"}, {"file": "y.png", "label": "cat"}]
    assert client.put(f"/datasets/{dataset}/labels", json={"labels": lines}).is_success
    report = upload(client, dataset, {"cat/1.png": picture(1), "cat/2.png": picture(2)})
    assert (report["duplicates"], report["labelled"]) == (2, 1)
    (line,) = [line for line in report["lines"] if line["outcome"] == "unlabelled"]
    assert (line["file"], line["code"]) == ("cat/1.png", "OtherLabel")
    assert "'seen by people'" in line["detail"]
    assert "'cat'" in line["detail"]
    assert labels_of(client, dataset) == {"cat/1.png": "seen by people", "cat/2.png": "cat"}
    assert len(history(client, dataset)) == 2


def test_only_images_of_the_upload_are_labelled(client: TestClient, add_dataset: Add) -> None:
    """One that came earlier, under a name that another image has now, is none of them."""
    dataset = add_dataset()
    earlier = tar_of({"cat/1.png": picture(1), "dog/2.png": picture(2)})
    assert client.post(f"/datasets/{dataset}/images", content=earlier).is_success
    report = upload(client, dataset, {"cat/1.png": picture(3)})
    assert (report["added"], report["labelled"]) == (1, 1)
    items = client.get(f"/datasets/{dataset}/images?labelled=true").json()["items"]
    assert [item["names"] for item in items] == [["cat/1.png"]]
    assert client.get(f"/datasets/{dataset}").json()["label_count"] == 1


def test_names_that_are_no_classes(client: TestClient, add_dataset: Add) -> None:
    dataset = add_dataset()
    long = "n" * 201
    report = upload(client, dataset, {f"{long}/a.png": picture(1), " /b.png": picture(2)})
    assert (report["added"], report["labelled"]) == (2, 0)
    codes = [(line["outcome"], line["code"]) for line in report["lines"]]
    assert codes == [("unlabelled", "ClassNameInvalid")] * 2
    assert "found 201 characters; a class has 1 to 200" in report["lines"][0]["detail"]


@pytest.mark.parametrize("way", ["tar", "form"])
def test_a_path_that_is_cut_names_no_folder(client: TestClient, add_dataset: Add, way: str) -> None:
    dataset = add_dataset()
    deep = "/".join(["d" * 100] * 12) + "/bolt/c.png"
    report = upload(client, dataset, {deep: picture(3), "d" * 1000 + "/a.png": picture(4)}, way)
    assert (report["added"], report["labelled"]) == (2, 0)
    assert [line["code"] for line in report["lines"]] == ["NameTooLong", "ClassNameInvalid"]
    assert "more than 1020 bytes" in report["lines"][0]["detail"]


def test_too_many_classes_set_no_label(client: TestClient, add_dataset: Callable[..., str]) -> None:
    dataset_id = add_dataset()
    body = tar_of({f"class {n}/a.png": picture(100 + n) for n in range(21)})
    answer = client.post(f"/datasets/{dataset_id}/images?labels=folders", content=body)
    assert_problem(answer, 422, "found 21 classes; at most 20", "21 images .* were added")
    made = client.get(f"/datasets/{dataset_id}").json()
    assert (made["image_count"], made["label_count"]) == (21, 0)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("a.png", None),
        ("./a.png", None),
        (".//a.png", None),
        ("cat/a.png", "cat"),
        ("x/cat/./a.png", "cat"),
        ("x//cat//a.png", "cat"),
        ("x\\cat\\a.png", "cat"),
        ("x/ cat\t/a.png", "cat"),
        ("e\u0301/a.png", "é"),
        ("c\u202eat/a.png", "cat"),
        ("cat/", "cat"),
    ],
)
def test_class_folder(name: str, folder: str | None) -> None:
    assert class_folder(name) == folder
