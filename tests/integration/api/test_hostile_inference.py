"""Hostile files in serving requests: each has its refusal, sound ones beside them are answered."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TypeVar
from uuid import UUID

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.main import create_app
from core.config import Settings
from tests.integration.api.problems import assert_problem, picture
from tests.tiny_models import CLASSES, record_tiny_model
from tests.unit.images.hostile import files
from tests.unit.images.test_pool import COSTLY
from tests.unit.images.test_reader import ODD, ORDINARY

Item = TypeVar("Item")
GOOD = picture(1)
LARGE = 200_000  # bytes; so that the whole corpus goes through in seconds
HOSTILE = {name: item for name, item in files().items() if len(item[0]) < LARGE}
NAMED = {name: item for name, item in HOSTILE.items() if " cut at " not in name}
HEAVY = [item for item in files().items() if LARGE <= len(item[1][0]) < 2_000_000]
CLEAN = {**ORDINARY, **{name: data for name, data in ODD.items() if len(data) < LARGE}}


def parts(named: dict[str, Item], size: int) -> Iterator[list[tuple[str, Item]]]:
    items = list(named.items())
    for start in range(0, len(items), size):
        yield items[start : start + size]


@pytest.mark.parametrize("route", ["/embed", "/predict"])
def test_each_is_refused_and_the_sound_one_beside_it_answered(
    client: TestClient, classifier: UUID, route: str
) -> None:
    assert len(HOSTILE) >= 300
    for part in parts(HOSTILE, 7):
        sent = [("files", (name, data)) for name, (data, _) in part]
        answer = client.post(
            route, data={"model": str(classifier)}, files=[*sent, ("files", ("good", GOOD))]
        )
        assert answer.status_code == 200, answer.text
        *bad, good = answer.json()["items"]
        found = {name: item["error"]["code"] for (name, _), item in zip(part, bad, strict=True)}
        assert found == {name: code for name, (_, code) in part}
        assert good["error"] is None


@pytest.mark.parametrize(("name", "item"), HEAVY, ids=[name for name, _ in HEAVY])
def test_large_ones_alone(
    client: TestClient, classifier: UUID, name: str, item: tuple[bytes, str]
) -> None:
    data, code = item
    kind = {"content-type": "application/octet-stream"}
    answer = client.post(f"/predict?model={classifier}", content=data, headers=kind)
    body = assert_problem(answer, 413 if code == "ImageTooLarge" else 422)
    assert body["errors"][0]["code"] == code


@pytest.mark.parametrize("name", NAMED)
def test_the_other_ways_in_refuse_them_too(client: TestClient, classifier: UUID, name: str) -> None:
    data, code = NAMED[name]
    encoded = base64.b64encode(data).decode()
    large = code == "ImageTooLarge"
    uri = f"data:image/png;base64,{encoded}"
    answer = client.post("/v1/embeddings", json={"model": str(classifier), "input": uri})
    # OpenAI's clients know 400 for a body that cannot be used.
    assert assert_problem(answer, 413 if large else 400)["error"]["code"] == code
    answer = client.post("/search", json={"model": str(classifier), "image": encoded})
    assert assert_problem(answer, 413 if large else 422)["type"].endswith(code)


def test_all_kinds_of_sound_images_are_answered(client: TestClient, classifier: UUID) -> None:
    for part in parts(CLEAN, 8):
        sent = [("files", item) for item in part]
        answer = client.post("/predict", data={"model": str(classifier)}, files=sent)
        assert answer.status_code == 200, answer.text
        assert [item["error"] for item in answer.json()["items"]] == [None] * len(part)


@pytest.fixture(params=[{"decode_seconds": 0.1}, {"decode_memory_mb": 256}], ids=["time", "memory"])
def narrow(settings: Settings, request: pytest.FixtureRequest) -> Iterator[tuple[TestClient, str]]:
    """A service whose limits on decoding a costly image exceeds, and a model of it."""
    app: FastAPI = create_app(settings.model_copy(update=request.param))
    with TestClient(app, raise_server_exceptions=False) as client:
        client.get("/datasets")
        with app.state.sessions.begin() as session:
            model_id = record_tiny_model(session, app.state.store, classes=CLASSES)
        yield client, str(model_id)


def test_a_costly_image_costs_itself(narrow: tuple[TestClient, str]) -> None:
    client, model = narrow
    for _ in range(2):
        sent = [("files", ("costly", COSTLY)), ("files", ("webp", ODD["webp"]))]
        answer = client.post("/predict", data={"model": model}, files=sent)
        assert answer.status_code == 200, answer.text
        costly, sound = answer.json()["items"]
        assert costly["error"]["code"] == "ImageTooCostly"
        assert sound["error"] is None
    assert client.get("/healthz").status_code == 200
