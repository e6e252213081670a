"""Data in over HTTP: uploads, pages, labels, jobs recorded."""

from __future__ import annotations

import concurrent.futures
import hashlib
import random
import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from core.images.formats import FORMATS
from tests.integration.api.problems import assert_problem, picture, pictures
from tests.unit.images.archive_samples import tar_of, zip_of

Add = Callable[..., Any]


def names_of(client: TestClient, dataset_id: str, **query: Any) -> list[str]:
    answer = client.get(f"/datasets/{dataset_id}/images", params=query).json()
    return sorted(name for item in answer["items"] for name in item["names"])


@pytest.mark.parametrize("way", ["form", "zip", "tar"])
def test_upload_and_its_report(client: TestClient, add_dataset: Add, way: str) -> None:
    dataset_id = add_dataset()
    files = {**pictures(5), "again.png": picture(2), "text.jpg": b"no picture"}
    if way == "form":
        sent = [("files", (name, data)) for name, data in files.items()]
        answer = client.post(f"/datasets/{dataset_id}/images", files=sent)
    else:
        body = {"zip": zip_of, "tar": tar_of}[way](files)
        kind = {"content-type": f"application/{way}"}
        answer = client.post(f"/datasets/{dataset_id}/images", content=body, headers=kind)
    report = answer.json()
    assert answer.status_code == 200
    assert (report["added"], report["duplicates"], report["rejected"]) == (5, 1, 1)
    lines = {line["file"]: line for line in report["lines"]}
    assert {name: line["outcome"] for name, line in lines.items()} == {
        "again.png": "duplicate",
        "text.jpg": "rejected",
    }
    (twice,) = client.get(f"/datasets/{dataset_id}/images?name=again.png").json()["items"]
    assert twice["id"] == lines["again.png"]["image_id"]
    assert twice["names"] == ["again.png", "p2.png"]
    assert client.get(f"/datasets/{dataset_id}").json()["image_count"] == 5


def test_same_bytes_in_two_datasets_are_two_images(client: TestClient, add_dataset: Add) -> None:
    first, second = add_dataset(pictures(1)), add_dataset(pictures(1))
    ids = [client.get(f"/datasets/{d}/images").json()["items"][0]["id"] for d in (first, second)]
    assert ids[0] != ids[1]
    assert client.delete(f"/datasets/{first}").status_code == 204
    assert client.get(f"/images/{ids[0]}/content").status_code == 404
    assert client.get(f"/images/{ids[1]}/content").content == picture(0)


def test_keyset_pages_have_everything_once(client: TestClient, add_dataset: Add) -> None:
    dataset_id = add_dataset(pictures(25))
    seen: list[str] = []
    cursor = None
    while True:
        query = {"limit": 7, **({"cursor": cursor} if cursor else {})}
        page = client.get(f"/datasets/{dataset_id}/images", params=query).json()
        seen += [item["id"] for item in page["items"]]
        if cursor is None:  # what comes meanwhile belongs before the first page
            files = {"files": ("late.png", picture(99))}
            assert client.post(f"/datasets/{dataset_id}/images", files=files).is_success
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 25


def test_datasets_by_name_and_taken_names(client: TestClient) -> None:
    name = f"näme-{uuid4()}"
    made = client.post("/datasets", json={"name": f"  {name} ", "test_fraction": 0.25})
    assert made.status_code == 201
    assert made.headers["location"] == f"/datasets/{made.json()['id']}"
    listed = client.get("/datasets", params={"name": name}).json()["items"]
    assert [(d["id"], d["test_fraction"]) for d in listed] == [(made.json()["id"], 0.25)]
    assert_problem(client.post("/datasets", json={"name": name}), 409, "name: .*exists already")


def test_labels_as_json_and_csv(client: TestClient, add_dataset: Add) -> None:
    dataset_id = add_dataset({f"a/{name}": data for name, data in pictures(4).items()})
    url = f"/datasets/{dataset_id}/labels"
    image_id = client.get(f"/datasets/{dataset_id}/images").json()["items"][0]["id"]
    body = {"labels": [{"file": "p0.png", "label": " nut "}, {"image_id": image_id, "label": "ü"}]}
    clean = {"removed": 0, "splits": 0, "rejected": 0, "problems": []}
    assert client.put(url, json=body).json() == {
        **clean,
        "labelled": 2,
        "class_names": ["nut", "ü"],
    }
    csv = "﻿File,Label\r\na/p1.png,bolt\r\n"
    kind = {"content-type": "text/csv; charset=utf-8"}
    answer = client.put(url, content=csv.encode(), headers=kind).json()
    assert answer == {**clean, "labelled": 1, "class_names": ["bolt", "nut", "ü"]}
    gone = client.put(url, json={"labels": [{"file": "p0.png", "label": None}]}).json()
    assert gone == {**clean, "labelled": 0, "removed": 1, "class_names": ["bolt", "ü"]}
    assert client.get(f"/datasets/{dataset_id}").json()["labels_per_class"] == {"bolt": 1, "ü": 1}
    assert names_of(client, dataset_id, labelled=True) == ["a/p1.png", "a/p3.png"]
    assert names_of(client, dataset_id, labelled=False) == ["a/p0.png", "a/p2.png"]


@pytest.mark.parametrize("kind", FORMATS)
def test_image_content_is_what_was_uploaded(
    client: TestClient, add_dataset: Add, kind: str
) -> None:
    data = picture(7, kind)
    dataset_id = add_dataset({"x": data})
    (item,) = client.get(f"/datasets/{dataset_id}/images").json()["items"]
    answer = client.get(f"/images/{item['id']}/content")
    assert answer.content == data
    assert answer.headers["content-type"] == f"image/{kind.lower()}"
    assert answer.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    shown = "attachment" if kind == "TIFF" else "inline"
    name = f"{answer.headers['etag'][1:17]}.{kind.lower()}"
    assert answer.headers["content-disposition"] == f'{shown}; filename="{name}"'
    assert "immutable" in answer.headers["cache-control"]
    known = {"if-none-match": answer.headers["etag"]}
    assert client.get(f"/images/{item['id']}/content", headers=known).status_code == 304
    assert (item["width"], item["height"], item["bytes"]) == (24, 16, len(data))
    assert item["format"] == kind


def test_dataset_stays_while_a_job_needs_it(client: TestClient, add_dataset: Add) -> None:
    dataset_id = add_dataset(pictures(4))
    body = {"stage": "pretrain", "dataset_id": dataset_id, "batch_size": 2, "epochs": 1}
    made = client.post("/jobs", json=body)
    assert made.status_code == 202, made.text
    job = made.json()
    assert made.headers["location"] == f"/jobs/{job['id']}"
    assert (job["state"], job["plan"]["batch_size"]) == ("queued", 2)
    assert client.get(job["links"]["snapshot"]).json()["id"] == job["snapshot_id"]
    assert "model" not in job["links"]
    assert_problem(
        client.delete(f"/datasets/{dataset_id}"),
        409,
        f"1 unfinished job needs it: {job['id']} \\(queued\\)",
    )
    assert client.post(f"/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert client.post(f"/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert client.delete(f"/datasets/{dataset_id}").status_code == 204
    assert client.get(f"/jobs/{job['id']}").json()["dataset_id"] is None
    assert client.get(f"/jobs/{job['id']}/metrics").json()["series"] == []


def test_pipeline_is_a_chain(client: TestClient, add_dataset: Add) -> None:
    dataset_id = add_dataset(pictures(4))
    labels = [{"file": f"p{n}.png", "label": "ab"[n % 2]} for n in range(4)]
    assert client.put(f"/datasets/{dataset_id}/labels", json={"labels": labels}).is_success
    few = {"batch_size": 2}
    body = {"stage": "pipeline", "dataset_id": dataset_id, "pretrain": few, "distill": few}
    chain = client.post("/jobs", json=body).json()["jobs"]
    assert [job["stage"] for job in chain] == ["pretrain", "finetune", "distill"]
    assert [job["state"] for job in chain] == ["queued", "waiting", "waiting"]
    assert [job["needs"] for job in chain] == [None, chain[0]["id"], chain[1]["id"]]
    listed = client.get("/jobs", params={"pipeline_id": chain[0]["pipeline_id"]}).json()["items"]
    assert [job["id"] for job in listed] == [job["id"] for job in reversed(chain)]


def test_two_deletions_at_once(client: TestClient, add_dataset: Add, add_model: Add) -> None:
    """The second finds nothing, whenever it comes; neither fails."""
    for _ in range(5):
        for path in (f"/datasets/{add_dataset()}", f"/models/{add_model()}"):
            start = threading.Barrier(4)

            def delete(path: str = path, start: threading.Barrier = start) -> int:
                start.wait()
                return client.delete(path).status_code

            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                statuses = sorted(f.result() for f in [pool.submit(delete) for _ in range(4)])
            assert statuses == [204, 404, 404, 404]


def test_uploads_of_the_same_images_at_once(client: TestClient, add_dataset: Add) -> None:
    dataset_id = add_dataset(pictures(5))
    files = list(pictures(200).items())
    start = threading.Barrier(4)

    def upload(seed: int) -> dict[str, Any]:
        body = tar_of(dict(random.Random(seed).sample(files, len(files))))
        start.wait()
        answer = client.post(f"/datasets/{dataset_id}/images", content=body)
        assert answer.status_code == 200, answer.text
        report: dict[str, Any] = answer.json()
        return report

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(upload, range(4)))
    assert sum(report["added"] for report in reports) == 195
    assert sum(report["duplicates"] for report in reports) == 605
    assert client.get(f"/datasets/{dataset_id}").json()["image_count"] == 200
