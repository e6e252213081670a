"""Snapshots over HTTP, and the splits that people give."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from core.datasets.snapshot import split_of
from core.db.models import Dataset
from core.jobs.previews import _facts, _spread
from tests.integration.api.problems import assert_problem, pictures
from tests.unit.api.test_label_lines import ODD

Add = Callable[..., str]
NOWHERE = "00000000-0000-4000-8000-000000000000"
FRACTIONS = {"test_fraction": 0.3, "validation_fraction": 0.2}
FILES = pictures(40)
NAME_OF = {hashlib.sha256(data).hexdigest(): name for name, data in FILES.items()}


@pytest.fixture
def dataset(add_dataset: Add) -> str:
    """Thirty images, divided by their content."""
    return add_dataset(dict(list(FILES.items())[:30]), **FRACTIONS)


def give(client: TestClient, dataset: str, *lines: dict[str, Any]) -> None:
    answer = client.put(f"/datasets/{dataset}/labels", json={"labels": lines})
    assert answer.status_code == 200, answer.text


def frozen(client: TestClient, dataset: str) -> dict[str, Any]:
    """The snapshot of a new job."""
    body = {"stage": "pretrain", "dataset_id": dataset, "batch_size": 2}
    job = client.post("/jobs", json=body)
    assert job.status_code == 202, job.text
    answer = client.get(f"/snapshots/{job.json()['snapshot_id']}")
    assert answer.status_code == 200, answer.text
    snapshot: dict[str, Any] = answer.json()
    return snapshot


def items_of(client: TestClient, snapshot: dict[str, Any], limit: int = 7) -> list[dict[str, Any]]:
    url, query = f"/snapshots/{snapshot['id']}/items", {"limit": limit}
    items: list[dict[str, Any]] = []
    while True:
        answer = client.get(url, params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        query["cursor"] = page["next_cursor"]


def splits_of(client: TestClient, dataset: str) -> dict[str, str]:
    items = items_of(client, frozen(client, dataset), limit=1000)
    return {NAME_OF[item["sha256"]]: item["split"] for item in items}


def by_content() -> dict[str, str]:
    return {name: split_of(sha256, **FRACTIONS) for sha256, name in NAME_OF.items()}


def test_a_snapshot_is_counted_and_listed(client: TestClient, dataset: str) -> None:
    classes = [*ODD, "a\u2028b", "a\nb", "標籤"]
    lines = [{"file": f"p{n}.png", "label": name} for n, name in enumerate(classes)]
    give(client, dataset, *lines, {"file": "p20.png", "split": "test"})
    snapshot = frozen(client, dataset)
    assert snapshot["dataset_id"] == dataset
    assert (snapshot["image_count"], snapshot["label_count"]) == (30, len(classes))
    assert snapshot["class_names"] == sorted(classes)
    assert snapshot.keys() == {
        *("id", "dataset_id", "digest", "image_count", "label_count", "class_names"),
        *("splits", "created_at"),
    }
    items = items_of(client, snapshot)
    hashes = [item["sha256"] for item in items]
    assert hashes == sorted(set(hashes))
    labels = {NAME_OF[item["sha256"]]: item["label"] for item in items}
    given = {line["file"]: line["label"] for line in lines}
    assert labels == {f"p{n}.png": given.get(f"p{n}.png") for n in range(30)}
    images = Counter(item["split"] for item in items)
    labelled = Counter(item["split"] for item in items if item["label"] is not None)
    assert snapshot["splits"] == {
        name: {"images": images[name], "labels": labelled[name]}
        for name in ("train", "validation", "test")
    }
    assert items_of(client, snapshot, limit=30) == items == items_of(client, snapshot, limit=1)


def test_jobs_on_unchanged_data_share_a_snapshot(client: TestClient, dataset: str) -> None:
    first = frozen(client, dataset)
    assert frozen(client, dataset) == first
    give(client, dataset, {"file": "p0.png", "label": "a", "split": "test"})
    second = frozen(client, dataset)
    assert second["id"] != first["id"]
    # The label is set once more, and the split becomes the one that it has by content.
    give(client, dataset, {"file": "p0.png", "label": "a"})
    assert frozen(client, dataset) == second
    give(client, dataset, {"file": "p0.png", "label": None, "split": by_content()["p0.png"]})
    assert frozen(client, dataset) == first
    give(client, dataset, {"file": "p0.png", "split": None})
    assert frozen(client, dataset) == first
    assert client.get(f"/snapshots/{second['id']}").json() == second


def test_given_splits_count_and_the_others_stay(client: TestClient, dataset: str) -> None:
    expected = {f"p{n}.png": by_content()[f"p{n}.png"] for n in range(30)}
    assert splits_of(client, dataset) == expected
    assert set(expected.values()) == {"train", "validation", "test"}
    names = ["test", "train", "validation"]
    given = {f"p{n}.png": names[n % 3] for n in range(12)}
    give(client, dataset, *({"file": name, "split": split} for name, split in given.items()))
    assert splits_of(client, dataset) == expected | given
    give(client, dataset, {"file": "p0.png", "split": None}, {"file": "p1.png", "split": "test"})
    now = expected | given | {"p0.png": expected["p0.png"], "p1.png": "test"}
    assert splits_of(client, dataset) == now


def test_adding_images_moves_none_across(client: TestClient, dataset: str) -> None:
    give(client, dataset, *({"file": f"p{n}.png", "split": "validation"} for n in range(5)))
    before = splits_of(client, dataset)
    for number in range(30, 40):
        sent = {"files": (f"p{number}.png", FILES[f"p{number}.png"])}
        assert client.post(f"/datasets/{dataset}/images", files=sent).is_success
        # Under a second name as well: it is the same image.
        again = {"files": (f"again/{number}.png", FILES[f"p{number - 30}.png"])}
        assert client.post(f"/datasets/{dataset}/images", files=again).json()["duplicates"] == 1
    after = splits_of(client, dataset)
    assert len(after) == 40
    assert {name: after[name] for name in before} == before
    give(client, dataset, {"file": "again/30.png", "split": "train"})
    assert splits_of(client, dataset)["p0.png"] == "train"


def test_a_split_is_the_datasets_own(client: TestClient, dataset: str, add_dataset: Add) -> None:
    other = add_dataset(dict(list(FILES.items())[:30]), **FRACTIONS)
    before = splits_of(client, other)
    give(client, dataset, *({"file": f"p{n}.png", "split": "test"} for n in range(30)))
    assert splits_of(client, other) == before
    give(client, other, *({"file": f"p{n}.png", "split": "train"} for n in range(30)))
    body = {"stage": "pretrain", "dataset_id": dataset, "batch_size": 2}
    answer = client.post("/jobs", json=body)
    assert answer.status_code == 422, "all images are for the test"
    assert set(splits_of(client, other).values()) == {"train"}


def test_the_picture_of_augmentations_shows_no_given_test_image(
    client: TestClient, dataset: str, session: Callable[[], Session]
) -> None:
    give(client, dataset, *({"file": f"p{n}.png", "split": "test"} for n in range(0, 30, 2)))
    give(client, dataset, *({"file": f"p{n}.png", "split": "train"} for n in range(1, 9, 2)))
    splits = splits_of(client, dataset)
    training = sorted(sha256 for sha256, name in NAME_OF.items() if splits.get(name) == "train")
    with session() as opened:
        found = opened.get_one(Dataset, UUID(dataset))
        facts, count = _facts(opened, found)
        chosen = [image.sha256 for image in _spread(opened, found, count, count)]
    assert chosen == training
    assert facts.images == sum(split != "test" for split in splits.values())


def test_bad_questions(client: TestClient, dataset: str) -> None:
    snapshot = frozen(client, dataset)
    for path in (f"/snapshots/{NOWHERE}", f"/snapshots/{NOWHERE}/items"):
        assert_problem(client.get(path), 404, f"snapshot_id: .*{NOWHERE}")
    assert_problem(client.get("/snapshots/7"), 422, "snapshot_id")
    url = f"/snapshots/{snapshot['id']}/items"
    for cursor in ("x", "A" * 64, "a" * 63, "a" * 64 + "\n"):
        assert_problem(client.get(url, params={"cursor": cursor}), 400, "cursor.*next_cursor")
    assert client.get(url, params={"cursor": "f" * 64}).json() == {"items": [], "next_cursor": None}
    assert_problem(client.get(f"{url}?limit=0"), 422, "limit")
    for job in client.get("/jobs", params={"dataset_id": dataset}).json()["items"]:
        client.post(f"/jobs/{job['id']}/cancel").raise_for_status()
    assert client.delete(f"/datasets/{dataset}").status_code == 204
    assert_problem(client.get(f"/snapshots/{snapshot['id']}"), 404)
