"""The history of labels: who, when, from what to what; pages; what it goes with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from api.main import create_app
from core import auth
from core.config import Settings
from core.datasets import removal
from core.db.labelling import ImageSplit, LabelChange
from core.db.models import Image
from tests.integration.api.problems import assert_problem, pictures

Add = Callable[..., str]
NOWHERE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def dataset(client: TestClient, add_dataset: Add) -> Iterator[str]:
    dataset_id = add_dataset(pictures(4))
    yield dataset_id
    client.delete(f"/datasets/{dataset_id}")


def label(client: TestClient, dataset: str, **labels: str | None) -> None:
    lines = [{"file": f"{name}.png", "label": said} for name, said in labels.items()]
    answer = client.put(f"/datasets/{dataset}/labels", json={"labels": lines})
    assert answer.status_code == 200, answer.text


def history(client: TestClient, dataset: str, **query: Any) -> list[dict[str, Any]]:
    answer = client.get(f"/datasets/{dataset}/labels/history", params=query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def image_ids(client: TestClient, dataset: str) -> dict[str, str]:
    items = client.get(f"/datasets/{dataset}/images").json()["items"]
    return {item["names"][0].removesuffix(".png"): item["id"] for item in items}


def test_changes_are_told_newest_first(client: TestClient, dataset: str) -> None:
    label(client, dataset, p0="bolt", p1="nut", p2=None)
    label(client, dataset, p0="bolt", p1="bolt")
    label(client, dataset, p1=None, p3="Bolt")
    ids = image_ids(client, dataset)
    items = history(client, dataset)
    assert [(item["image_id"], item["from_label"], item["to_label"]) for item in items] == [
        (ids["p3"], None, "Bolt"),
        (ids["p1"], "bolt", None),
        (ids["p1"], "nut", "bolt"),
        (ids["p1"], None, "nut"),
        (ids["p0"], None, "bolt"),
    ]
    assert {(item["key_id"], item["key_name"]) for item in items} == {(None, "local")}
    times = [item["changed_at"] for item in items]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == len(times)
    one = history(client, dataset, image_id=ids["p1"])
    assert one == [item for item in items if item["image_id"] == ids["p1"]]
    assert history(client, dataset, image_id=NOWHERE) == []


def test_what_is_refused_is_no_change(client: TestClient, dataset: str) -> None:
    lines = [{"file": "p0.png", "label": "a"}, {"file": "no.png", "label": "a"}]
    url = f"/datasets/{dataset}/labels"
    assert client.put(url, json={"labels": lines}).status_code == 422
    assert client.put(url, json={"labels": [{"file": "p1.png", "split": "test"}]}).is_success
    assert history(client, dataset) == []
    assert client.put(f"{url}?partial=true", json={"labels": lines}).is_success
    assert [item["to_label"] for item in history(client, dataset)] == ["a"]


def test_pages_have_every_change_once(client: TestClient, dataset: str) -> None:
    for number in range(5):
        label(client, dataset, **{f"p{n}": f"class {number}" for n in range(4)})
    everything = history(client, dataset)
    assert len(everything) == 20
    seen: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 7}
    for page in range(3):
        answer = client.get(f"/datasets/{dataset}/labels/history", params=query).json()
        seen += answer["items"]
        query["cursor"] = answer["next_cursor"]
        label(client, dataset, p0=f"meanwhile {page}")  # before the first page: not seen
    assert query["cursor"] is None
    assert seen == everything
    broken = client.get(f"/datasets/{dataset}/labels/history?cursor=abc")
    assert_problem(broken, 400, "cursor.*next_cursor")
    assert_problem(client.get(f"/datasets/{NOWHERE}/labels/history"), 404, NOWHERE)


def test_the_key_is_named(
    app: FastAPI, client: TestClient, settings: Settings, dataset: str
) -> None:
    with app.state.sessions.begin() as session:
        key, secret = auth.create_key(
            session, project="default", name="the labelling team", scopes=["write"]
        )
    guarded = create_app(settings.model_copy(update={"auth_mode": "keys"}))
    with TestClient(guarded, headers={"authorization": f"Bearer {secret}"}) as keyed:
        label(keyed, dataset, p0="bolt")
    with app.state.sessions.begin() as session:
        auth.revoke_key(session, key.id)
    (item,) = history(client, dataset)
    assert (item["key_id"], item["key_name"]) == (str(key.id), "the labelling team")


def test_it_goes_with_the_image_and_with_the_dataset(
    app: FastAPI, client: TestClient, dataset: str, session: Callable[[], Session]
) -> None:
    label(client, dataset, p0="a", p1="b", p2="c")
    splits = [{"file": f"p{n}.png", "split": "test"} for n in range(3)]
    assert client.put(f"/datasets/{dataset}/labels", json={"labels": splits}).is_success
    ids = image_ids(client, dataset)

    def kept() -> list[int | None]:
        with session() as opened:
            return [
                opened.scalar(
                    select(func.count()).select_from(table).where(table.dataset_id == dataset)
                )
                for table in (LabelChange, ImageSplit)
            ]

    assert kept() == [3, 3]
    with session() as opened, opened.begin():
        opened.execute(delete(Image).where(Image.id == UUID(ids["p0"])))
    assert kept() == [2, 2]
    assert [item["to_label"] for item in history(client, dataset)] == ["c", "b"]
    assert client.delete(f"/datasets/{dataset}").status_code == 204
    removal.sweep(app.state.sessions, seconds=20)
    assert kept() == [0, 0]
