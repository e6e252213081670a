"""Serving calls are answered by the short way exactly as FastAPI's own way answers them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from starlette.types import Scope

import api.short_path
from tests.integration.api.problems import picture
from tests.integration.api.test_bad_inference import BASE64

GOOD = picture(1)
OWN = {"x-request-id", "server-timing", "content-length", "date"}  # of a single answer
CHUNK = bytes(1_000_000)


def pieces() -> Iterator[bytes]:
    """More than a request may have, without saying so beforehand."""
    for _ in range(20):
        yield CHUNK


def raw(content: Any, kind: str = "image/png") -> dict[str, Any]:
    return {"params": {"model": "MODEL"}, "content": content, "headers": {"content-type": kind}}


def json(*images: str, model: str = "MODEL", **headers: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"json": {"model": model, "images": images}, "headers": named}


CALLS: dict[str, tuple[int, dict[str, Any]]] = {
    "raw": (200, raw(GOOD)),
    "form": (200, {"data": {"model": "MODEL"}, "files": [("files", ("a.png", GOOD))] * 2}),
    "JSON": (200, json(BASE64, "!!!")),
    "in time": (200, json(BASE64, x_timeout_ms="20000")),
    "a time that is none": (422, json(BASE64, x_timeout_ms="-1")),
    "too long a time": (422, json(BASE64, x_timeout_ms="9" * 30)),
    "an id of its own": (200, json(BASE64, x_request_id="mine")),
    "no such model": (404, json(BASE64, model="nobody")),
    "no such field": (422, {"json": {"model": "MODEL", "images": [BASE64], "top": 3}}),
    "not JSON": (400, raw(b"{", "application/json") | {"params": {}}),
    "options beside JSON": (400, raw(b"{", "application/json")),
    "nothing": (400, {}),
    "not an image": (422, raw(b"GIF", "image/gif")),
    "too large": (413, raw(bytes(17_000_000))),
    "too large, in pieces": (413, raw(pieces)),
    "a form that is cut off": (
        400,
        raw(b"--x", "multipart/form-data; boundary=x") | {"params": {}},
    ),
}


@pytest.fixture
def long_way(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Sends all calls from then on through FastAPI's router."""

    def take() -> None:
        monkeypatch.setattr(api.short_path, "_is_plain", lambda scope: False)

    return take


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the calls that went the short way."""
    found: list[str] = []
    plain = api.short_path._is_plain

    def noting(scope: Scope) -> bool:
        if is_plain := plain(scope):
            found.append(scope["path"])
        return is_plain

    monkeypatch.setattr(api.short_path, "_is_plain", noting)
    return found


def call(client: TestClient, route: str, model: UUID, wishes: dict[str, Any]) -> Response:
    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(inner) for key, inner in value.items()}
        return str(model) if value == "MODEL" else value() if callable(value) else value

    return client.post(route, **filled(wishes))


def told(answer: Response) -> tuple[int, str, dict[str, str]]:
    headers = {name: value for name, value in answer.headers.items() if name not in OWN}
    body = answer.text.replace(answer.headers["x-request-id"], "ID")
    return answer.status_code, re.sub(r"\d\.\d{4,}(e-\d+)?", "N", body), headers


@pytest.mark.parametrize("route", ["/embed", "/predict"])
@pytest.mark.parametrize(("status", "wishes"), CALLS.values(), ids=CALLS)
def test_both_ways_answer_alike(
    client: TestClient,
    classifier: UUID,
    long_way: Callable[[], None],
    route: str,
    status: int,
    wishes: dict[str, Any],
) -> None:
    short = call(client, route, classifier, wishes)
    long_way()
    long = call(client, route, classifier, wishes)
    assert short.status_code == status
    assert told(short) == told(long)


def test_keys_and_scopes_are_asked_for(
    guarded_client: TestClient, key: Callable[..., dict[str, str]], taken: list[str]
) -> None:
    body = {"model": "nobody", "images": [BASE64]}
    answers = {
        "none": guarded_client.post("/embed", json=body),
        "another scope": guarded_client.post("/embed", json=body, headers=key("short", "read")),
        "the right one": guarded_client.post("/embed", json=body, headers=key("short", "infer")),
    }
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "none": 401,
        "another scope": 403,
        "the right one": 404,
    }
    assert answers["none"].headers["www-authenticate"] == "Bearer"
    assert taken == ["/embed"] * 3


def test_it_is_taken_by_plain_calls_and_counted_under_the_route(
    client: TestClient, classifier: UUID, taken: list[str]
) -> None:
    body = {"model": str(classifier), "images": [BASE64]}
    line = 'fewlabels_requests_total{method="POST",route="/predict",status="200"} '

    def counted() -> float:
        found = re.search(re.escape(line) + r"(\S+)", client.get("/metrics").text)
        return float(found[1]) if found else 0.0

    before = counted()
    assert client.post("/predict", json=body).status_code == 200
    assert counted() == before + 1
    assert client.get("/predict").status_code == 405
    assert client.post("/predict/", json=body).status_code in {307, 404}
    wrong = client.post("/predict", json=body, headers={"x-timeout-ms": "soon"})
    assert wrong.status_code == 422
    assert taken == ["/predict"]


def test_a_loopback_service_still_refuses_names_of_the_internet(
    app: FastAPI, client: TestClient, classifier: UUID
) -> None:
    assert app.state.settings.auth_mode == "off"
    body = {"model": str(classifier), "images": [BASE64]}
    answer = client.post("/embed", json=body, headers={"host": "rebound.example.com"})
    assert answer.status_code == 403
