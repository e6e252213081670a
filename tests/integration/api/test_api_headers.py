"""What browsers are told on every answer, which pages may call, and what is never kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.main import create_app
from core.config import Settings, load_settings
from core.errors import ConfigurationInvalid
from tests.integration.api.problems import assert_problem, picture

ORIGIN = "https://app.example.com"
EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
ANSWERS = [
    ("GET", "/datasets", 200),
    ("POST", "/datasets", 422),
    ("GET", "/nothing", 404),
    ("PATCH", "/datasets", 405),
    ("GET", "/healthz", 200),
    ("GET", "/metrics", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/docs", 200),
    ("GET", "/redoc", 200),
    ("GET", "/static-offline-docs/swagger-ui.css", 200),
]


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
def test_every_answer_has_them(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path, json={} if method == "POST" else None)
    assert answer.status_code == status
    assert EVERYWHERE.items() <= dict(answer.headers).items()
    assert "strict-transport-security" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy
    assert ("script-src" in policy) == path.startswith(("/docs", "/redoc", "/static"))
    assert "*" not in policy


def test_an_unexpected_error_has_them_too(app: FastAPI, client: TestClient) -> None:
    sessions, app.state.sessions = app.state.sessions, None
    try:
        answer = client.get("/datasets")
    finally:
        app.state.sessions = sessions
    assert_problem(answer, 500)
    assert EVERYWHERE.items() <= dict(answer.headers).items()
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_body_over_the_limit_has_them_too(client: TestClient, settings: Settings) -> None:
    answer = client.post("/datasets", content=b"x" * (settings.max_json_bytes + 1))
    assert_problem(answer, 413)
    assert EVERYWHERE.items() <= dict(answer.headers).items()


def test_an_image_keeps_its_own(client: TestClient, add_dataset: Callable[..., str]) -> None:
    dataset_id = add_dataset({"a.png": picture(1)})
    image_id = client.get(f"/datasets/{dataset_id}/images").json()["items"][0]["id"]
    answer = client.get(f"/images/{image_id}/content")
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"


def test_a_models_file_is_an_attachment(client: TestClient, encoder: UUID) -> None:
    answer = client.get(f"/models/{encoder}/files/manifest.json")
    assert answer.headers["content-disposition"] == 'attachment; filename="manifest.json"'


MARKUP = {
    "picture.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "page.html": b"<!doctype html><script>alert(1)</script>",
    "page.png": b"<html><body onload=alert(1)></body></html>",
    "text.xml": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><x>&y;</x>',
}


def test_svg_and_html_are_refused(client: TestClient, add_dataset: Callable[..., str]) -> None:
    dataset_id = add_dataset()
    files = [("files", (name, data, "image/png")) for name, data in MARKUP.items()]
    report = client.post(f"/datasets/{dataset_id}/images", files=files).json()
    assert (report["added"], report["rejected"]) == (0, len(MARKUP))
    assert {line["file"] for line in report["lines"]} == set(MARKUP)
    assert {line["code"] for line in report["lines"]} == {"ImageInvalid"}
    assert client.get(f"/datasets/{dataset_id}/images").json()["items"] == []


@pytest.fixture(scope="module")
def shared(settings: Settings) -> Iterator[TestClient]:
    """A service behind TLS whom the pages of one origin may call."""
    wishes: dict[str, Any] = {"cors_origins": f"{ORIGIN}, http://localhost:3000", "tls": True}
    with TestClient(create_app(settings.model_copy(update=wishes))) as calling:
        yield calling


def preflight(client: TestClient, origin: str) -> Any:
    wanted = {
        "access-control-request-method": "PUT",
        "access-control-request-headers": "authorization, content-type, idempotency-key",
    }
    return client.options("/aliases/production", headers={"origin": origin, **wanted})


def test_pages_may_not_call_by_default(client: TestClient) -> None:
    assert_problem(preflight(client, ORIGIN), 405)
    answer = client.get("/datasets", headers={"origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origin", [ORIGIN, "http://localhost:3000"])
def test_pages_of_an_allowed_origin_may(shared: TestClient, origin: str) -> None:
    allowed = preflight(shared, origin)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == origin
    assert "PUT" in allowed.headers["access-control-allow-methods"]
    assert EVERYWHERE.items() <= dict(allowed.headers).items()
    answer = shared.get("/datasets", headers={"origin": origin})
    assert answer.headers["access-control-allow-origin"] == origin
    assert "Location" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", f"{ORIGIN}.evil.example"])
def test_pages_of_others_may_not(shared: TestClient, origin: str) -> None:
    assert preflight(shared, origin).status_code == 400
    answer = shared.get("/datasets", headers={"origin": origin})
    assert "access-control-allow-origin" not in answer.headers


def test_behind_tls_browsers_are_told_to_stay_there(shared: TestClient) -> None:
    for path in ("/datasets", "/nothing"):
        told = shared.get(path).headers["strict-transport-security"]
        assert told == "max-age=31536000"


@pytest.mark.parametrize(
    "origins", ["*", "null", "app.example.com", f"{ORIGIN}/", f"{ORIGIN},ftp://x", "https://*.x"]
)
def test_what_is_no_origin_is_refused(origins: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=r"FEWLABELS_CORS_ORIGINS: .*found"):
        load_settings(cors_origins=origins)
