"""Serving over HTTP: deadlines, callers that hang up, and which model answered."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from core.inference.engine import Engine
from core.learning.preprocessing import Preprocessing
from core.learning.runtimes import Pixels
from tests.integration.api.listening import listening
from tests.integration.api.problems import assert_problem
from tests.integration.api.test_bad_inference import BASE64

LIMIT = 20.0


class Gate:
    """Decoding that waits until it is opened."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.open = threading.Event()
        self.calls = 0

    def around(self, canvas: Callable[..., Pixels]) -> Callable[..., Pixels]:
        def gated(*args: Any) -> Pixels:
            self.calls += 1
            self.begun.release()
            assert self.open.wait(LIMIT)
            return canvas(*args)

        return gated


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    monkeypatch.setattr(Preprocessing, "canvas", gate.around(Preprocessing.canvas))
    return gate


def places_taken(app: FastAPI, model_id: UUID) -> int:
    engine: Engine = app.state.engine.result()
    return engine._shelf._kept[model_id, False].admission._taken


def test_answers_say_which_model_and_where_the_time_went(
    client: TestClient, classifier: UUID
) -> None:
    body = {"model": str(classifier), "images": [BASE64, "!!!"]}
    for route in ("/embed", "/predict"):
        answer = client.post(route, json=body)
        assert answer.headers["x-fewlabels-model"] == answer.json()["model_id"] == str(classifier)
        steps = re.fullmatch(
            r"decode;dur=([\d.]+), queue;dur=([\d.]+), forward;dur=([\d.]+)",
            answer.headers["server-timing"],
        )
        assert steps is not None
        assert all(float(step) > 0 for step in steps.groups())
    uri = f"data:image/png;base64,{BASE64}"
    answer = client.post("/v1/embeddings", json={"model": str(classifier), "input": uri})
    assert answer.headers["x-fewlabels-model"] == str(classifier)


def test_a_deadline_is_504_and_frees_its_place(
    app: FastAPI, client: TestClient, classifier: UUID, gate: Gate
) -> None:
    body = {"model": str(classifier), "images": [BASE64] * 3}
    answer = client.post("/embed", json=body, headers={"X-Timeout-Ms": "100"})
    assert_problem(answer, 504, r"within 0\.1 seconds")
    assert places_taken(app, classifier) == 0
    gate.open.set()
    assert client.post("/embed", json=body).status_code == 200


@pytest.mark.parametrize("value", ["0", "-5", "soon", "1e9"])
def test_a_wrong_deadline_is_told(client: TestClient, classifier: UUID, value: str) -> None:
    body = {"model": str(classifier), "images": [BASE64]}
    answer = client.post("/embed", json=body, headers={"X-Timeout-Ms": value})
    assert_problem(answer, 422, "X-Timeout-Ms")


def test_who_hangs_up_is_not_worked_for(
    app: FastAPI, client: TestClient, classifier: UUID, gate: Gate
) -> None:
    count = 8
    body = json.dumps({"model": str(classifier), "images": [BASE64] * count})
    with listening(app) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", "/embed", body, {"content-type": "application/json"})
        assert gate.begun.acquire(timeout=LIMIT)
        assert places_taken(app, classifier) == count
        connection.close()
        deadline = time.monotonic() + LIMIT
        while places_taken(app, classifier) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert places_taken(app, classifier) == 0
        gate.open.set()
    assert client.post("/embed", content=body).status_code == 200
    assert gate.calls <= count + app.state.settings.inference_threads


def test_a_full_queue_is_429_at_once(
    app: FastAPI, client: TestClient, classifier: UUID, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"model": str(classifier), "images": [BASE64] * 2}
    gate.open.set()
    assert client.post("/embed", json=body).status_code == 200
    engine: Engine = app.state.engine.result()
    monkeypatch.setattr(engine._shelf._kept[classifier, False].admission, "_places", 3)
    gate.open.clear()
    gate.begun = threading.Semaphore(0)
    with (
        listening(app) as port,
        closing(http.client.HTTPConnection("127.0.0.1", port)) as connection,
    ):
        headers = {"content-type": "application/json"}
        connection.request("POST", "/embed", json.dumps(body), headers)
        assert gate.begun.acquire(timeout=LIMIT)
        refused = client.post("/embed", json=body)
        gate.open.set()
        assert connection.getresponse().status == 200
    assert_problem(refused, 429, "2 images are waiting.*at most 3")
    assert int(refused.headers["retry-after"]) >= 1


def test_readyz_goes_through_the_batcher(
    app: FastAPI, client: TestClient, classifier: UUID
) -> None:
    body = {"model": str(classifier), "images": [BASE64]}
    assert client.post("/embed", json=body).status_code == 200
    engine: Engine = app.state.engine.result()
    [served] = [s for s in engine._shelf.loaded() if s.model.model_id == classifier]

    def fails(canvases: list[Any]) -> list[Any]:
        raise ValueError("no pass today")

    served.batcher._forward = fails
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["engine"] == "does not answer"
    served.batcher._forward = served.model.forward
    assert client.get("/readyz").status_code == 200


def test_bodies_beyond_the_memory_for_them_are_429_unread(
    app: FastAPI, client: TestClient, classifier: UUID, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"model": str(classifier), "images": [BASE64]}
    monkeypatch.setattr(app.state.inbound, "_limit", 1)
    with (
        listening(app) as port,
        closing(http.client.HTTPConnection("127.0.0.1", port)) as connection,
    ):
        headers = {"content-type": "application/json"}
        connection.request("POST", "/embed", json.dumps(body), headers)
        assert gate.begun.acquire(timeout=LIMIT)
        for route in ("/predict", "/v1/embeddings", "/search"):
            refused = client.post(route, content=b"never looked at")
            assert_problem(refused, 429, "body: found 15 bytes.*at most 1 may")
        gate.open.set()
        assert connection.getresponse().status == 200
    assert client.post("/embed", json=body).status_code == 200
    assert app.state.inbound._taken == 0
