"""What is missing, what became of every file, and that an upload that broke off loses nothing."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.schemas.uploads import HashesIn
from core.db.imports import LooseBlob
from core.images.report import SHOWN_LINES
from tests.integration.api.listening import listening
from tests.integration.api.problems import assert_problem, picture, pictures
from tests.unit.images.archive_samples import tar_of

Add = Callable[..., Any]
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_missing_images_are_told_in_the_order_asked(client: TestClient, add_dataset: Add) -> None:
    dataset_id = add_dataset(pictures(3))
    other = add_dataset({"elsewhere.png": picture(7)})
    sums = [sha256(picture(number)) for number in (9, 1, 7, 1, 8)]
    url = f"/datasets/{dataset_id}/images/missing"
    assert client.post(url, json={"sha256": sums}).json() == {
        "missing": [sums[0], sums[2], sums[4]]  # that another dataset has it is nobody's business
    }
    assert client.get(f"/datasets/{other}").json()["image_count"] == 1


def test_names_go_to_images_that_are_there(client: TestClient, add_dataset: Add) -> None:
    dataset_id = add_dataset(pictures(2))
    there, gone = sha256(picture(1)), sha256(picture(5))
    body = {"sha256": [there, gone], "names": {there: ["./a/b.png", "‮x"], gone: ["c.png"]}}
    answer = client.post(f"/datasets/{dataset_id}/images/missing", json=body)
    assert answer.json() == {"missing": [gone]}
    for name in ("a/b.png", "x", "p1.png"):
        found = client.get(f"/datasets/{dataset_id}/images", params={"name": name}).json()["items"]
        assert [item["sha256"] for item in found] == [there]
    assert client.get(f"/datasets/{dataset_id}/images?name=c.png").json()["items"] == []


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"sha256": []}, "sha256"),
        ({"sha256": ["A" * 64]}, "sha256.0"),
        ({"sha256": ["a" * 63]}, "sha256.0"),
        ({"sha256": ["a" * 64], "names": {"b" * 64: ["x"]}}, "not among"),
        ({"sha256": ["a" * 64], "names": {"a" * 64: ["x"] * 101}}, "names"),
        ({"hashes": []}, "sha256"),
    ],
)
def test_odd_sums_are_refused(
    client: TestClient, dataset_id: str, body: dict[str, Any], said: str
) -> None:
    answer = client.post(f"/datasets/{dataset_id}/images/missing", json=body)
    assert_problem(answer, 422, said)


def test_ten_thousand_sums_a_call() -> None:
    """More than the small bodies of these tests have room for."""
    sums = [f"{number:064x}" for number in range(10_001)]
    assert len(HashesIn(sha256=sums[:10_000]).sha256) == 10_000
    with pytest.raises(ValidationError, match="at most 10000"):
        HashesIn(sha256=sums)


def test_every_file_is_accounted_for(client: TestClient, add_dataset: Add) -> None:
    dataset_id = add_dataset()
    files = {**pictures(6), "twice.png": picture(4), "../up.png": picture(9), "no.png": b"text"}
    answer = client.post(f"/datasets/{dataset_id}/images", content=tar_of(files)).json()
    url = f"/datasets/{dataset_id}/imports/{answer['import_id']}"
    told = client.get(url).json()
    assert (told["state"], told["dataset_id"]) == ("complete", dataset_id)
    assert (told["added"], told["duplicates"], told["rejected"]) == (6, 1, 2)
    assert [line["file"] for line in told["lines"]] == list(files)
    assert [line["number"] for line in told["lines"]] == list(range(9))
    assert [line["code"] for line in told["lines"][6:]] == [
        "Duplicate",
        "unsafe_name",
        "ImageInvalid",
    ]
    listed = client.get(f"/datasets/{dataset_id}/images").json()["items"]
    assert {line["image_id"] for line in told["lines"][:6]} == {item["id"] for item in listed}
    refused = client.get(url, params={"outcome": "rejected"}).json()
    assert [line["number"] for line in refused["lines"]] == [7, 8]
    seen, after = [], -1
    while after is not None:
        page = client.get(url, params={"after": after, "limit": 4}).json()
        seen += page["lines"]
        after = page["next_after"]
    assert seen == told["lines"]
    report = client.get(f"{url}/report.jsonl")
    assert report.headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line) for line in report.text.splitlines()] == told["lines"]


def test_a_long_report_is_cut_in_the_answer_only(client: TestClient, add_dataset: Add) -> None:
    dataset_id = add_dataset()
    files = {f"{number}.txt": b"text %d" % number for number in range(SHOWN_LINES + 300)}
    answer = client.post(f"/datasets/{dataset_id}/images", content=tar_of(files)).json()
    assert (len(answer["lines"]), answer["more_lines"]) == (SHOWN_LINES, 300)
    report = client.get(f"/datasets/{dataset_id}/imports/{answer['import_id']}/report.jsonl")
    assert len(report.text.splitlines()) == SHOWN_LINES + 300


def test_imports_belong_to_their_dataset(client: TestClient, add_dataset: Add) -> None:
    mine, other = add_dataset(pictures(1)), add_dataset(pictures(1))
    (told,) = client.get(f"/datasets/{mine}/imports").json()["items"]
    for path in (
        f"/datasets/{other}/imports/{told['id']}",
        f"/datasets/{mine}/imports/{UNKNOWN}",
        f"/datasets/{other}/imports/{told['id']}/report.jsonl",
    ):
        assert_problem(client.get(path), 404, "import_id")
    assert client.delete(f"/datasets/{mine}").status_code == 204
    assert client.get(f"/datasets/{mine}/imports/{told['id']}").status_code == 404


def test_deleting_an_image(
    client: TestClient, add_dataset: Add, session: Callable[[], Session]
) -> None:
    data = picture(200)
    dataset_id = add_dataset({**pictures(2), "x.png": data})
    labels = {"labels": [{"file": "x.png", "label": "bolt"}]}
    assert client.put(f"/datasets/{dataset_id}/labels", json=labels).is_success
    (item,) = client.get(f"/datasets/{dataset_id}/images?name=x.png").json()["items"]
    before = client.get(f"/datasets/{dataset_id}").json()
    assert client.delete(f"/images/{item['id']}").status_code == 204
    after = client.get(f"/datasets/{dataset_id}").json()
    assert (after["image_count"], after["label_count"]) == (2, 0)
    assert after["byte_count"] == before["byte_count"] - len(data)
    assert_problem(client.delete(f"/images/{item['id']}"), 404, "image_id")
    marked = select(func.count()).where(LooseBlob.key == f"images/{item['sha256']}")
    with session() as opened:
        assert opened.scalar(marked) == 1
    again = client.post(f"/datasets/{dataset_id}/images", files={"files": ("x.png", data)})
    assert again.json()["added"] == 1
    with session() as opened:
        assert opened.scalar(marked) == 0


def test_an_image_stays_while_a_job_needs_it(client: TestClient, add_dataset: Add) -> None:
    dataset_id = add_dataset(pictures(4))
    body = {"stage": "pretrain", "dataset_id": dataset_id, "batch_size": 2, "epochs": 1}
    job = client.post("/jobs", json=body).json()
    item = client.get(f"/datasets/{dataset_id}/images").json()["items"][0]
    assert_problem(client.delete(f"/images/{item['id']}"), 409, "1 unfinished job")
    assert client.post(f"/jobs/{job['id']}/cancel").is_success
    assert client.delete(f"/images/{item['id']}").status_code == 204


def wait_for_import(client: TestClient, dataset_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        items = client.get(f"/datasets/{dataset_id}/imports").json()["items"]
        if items and items[0]["state"] != "running":
            return dict(items[0])
        time.sleep(0.05)
    pytest.fail("the import did not end")


def test_what_arrived_before_the_line_was_cut_stays(
    app: FastAPI, client: TestClient, add_dataset: Add
) -> None:
    dataset_id = add_dataset()
    archive = tar_of(pictures(120))
    head = (
        f"POST /datasets/{dataset_id}/images HTTP/1.1\r\nHost: x\r\n"
        f"Content-Type: application/x-tar\r\nContent-Length: {len(archive)}\r\n\r\n"
    )
    with (
        listening(app) as port,
        socket.create_connection(("127.0.0.1", port)) as line,
    ):
        line.sendall(head.encode() + archive[: len(archive) // 2])
        time.sleep(0.5)
        line.close()
        told = wait_for_import(client, dataset_id)
    assert (told["state"], told["error_code"]) == ("failed", "Interrupted")
    kept = client.get(f"/datasets/{dataset_id}").json()["image_count"]
    assert told["added"] == kept > 40
    again = client.post(f"/datasets/{dataset_id}/images", content=archive).json()
    assert (again["added"], again["duplicates"], again["rejected"]) == (120 - kept, kept, 0)
