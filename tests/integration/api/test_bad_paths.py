"""Bad paths, queries, methods and names are refused in words."""

from __future__ import annotations

import base64
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from tests.integration.api.problems import assert_problem

ODD_ID = "3f2c8a526f0e4a3e9d8e1f6f5b0c-7d11"  # of a form that UUID() takes
SOME_ID = "d49fa334-f2ff-41a5-b0dd-b8843923c0a3"  # the same in every process that runs tests


NOWHERE = "00000000-0000-4000-8000-000000000000"


PATHS = [
    ("GET", "/datasets/7", 422, "dataset_id"),
    ("GET", f"/datasets/{NOWHERE}", 404, NOWHERE),
    ("DELETE", f"/datasets/{NOWHERE}", 404, NOWHERE),
    ("GET", f"/datasets/{NOWHERE}/images", 404, NOWHERE),
    ("POST", f"/datasets/{NOWHERE}/images", 404, NOWHERE),
    ("GET", f"/images/{NOWHERE}/content", 404, NOWHERE),
    ("GET", "/images/a%00b/content", 422, "image_id"),
    ("GET", f"/images/{NOWHERE}/thumbnail", 404, NOWHERE),
    ("GET", f"/images/{NOWHERE}/thumbnail?size=100", 422, "size: .*64, 128, 256 or 512"),
    ("GET", f"/images/{NOWHERE}/thumbnail?size=big", 422, "size"),
    ("GET", "/datasets?limit=-1", 422, "limit: .*greater"),
    ("GET", "/datasets?limit=1001", 422, "limit: .*1000"),
    ("GET", "/datasets?limit=" + "9" * 5000, 422, "limit"),
    ("GET", "/datasets?name=a%00b", 422, "name: .*NUL"),
    ("GET", "/datasets?cursor=abc", 400, "cursor.*next_cursor"),
    ("GET", "/jobs?cursor=%00%FF", 400, "cursor"),
    ("GET", "/jobs?limit=0", 422, "limit"),
    ("GET", "/jobs?state=sleeping", 422, "state"),
    ("GET", "/jobs?colour=red", 422, "colour"),
    ("GET", "/models?kind=x", 422, "kind"),
    ("GET", f"/models/{NOWHERE}", 404, NOWHERE),
    ("GET", f"/models/{NOWHERE}/files/manifest.json", 404, NOWHERE),
    ("DELETE", f"/models/{NOWHERE}", 404, NOWHERE),
    ("GET", f"/jobs/{NOWHERE}", 404, NOWHERE),
    ("GET", f"/jobs/{NOWHERE}/metrics", 404, NOWHERE),
    ("POST", f"/jobs/{NOWHERE}/cancel", 404, NOWHERE),
    ("POST", f"/jobs/{NOWHERE}/retry", 404, NOWHERE),
    ("DELETE", "/aliases/nothing", 404, "nothing"),
    ("DELETE", "/aliases/a%00b", 422, "name"),
    ("DELETE", "/aliases/..%2f..%2fx", 404, ""),
    ("GET", "/nothing/here", 404, "/nothing/here"),
    ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404, ""),
    ("GET", "/%ff%fe", 404, ""),
    ("PATCH", "/datasets", 405, "PATCH"),
    ("OPTIONS", "/datasets", 405, "OPTIONS"),
    ("BREW", "/datasets", 405, "BREW"),
    ("TRACE", "/embed", 405, "TRACE"),
    ("GET", "/predict", 405, "GET"),
]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("method", "path", "status", "said"), PATHS)
def test_bad_paths(client: TestClient, method: str, path: str, status: int, said: str) -> None:
    answer = client.request(method, path)
    assert_problem(answer, status, said)
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("OPTIONS", "/datasets", "GET, POST"),
        ("PATCH", f"/datasets/{NOWHERE}/images", "GET, POST"),
        ("POST", f"/datasets/{NOWHERE}", "GET, DELETE"),
        ("GET", "/aliases/nothing", "PUT, DELETE"),
        ("GET", "/embed", "POST"),
        ("PUT", "/healthz", "GET"),
    ],
)
def test_a_refused_method_is_told_all_that_are_taken(
    client: TestClient, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    assert_problem(answer, 405)
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-01", "+"]
)
@pytest.mark.parametrize("listing", ["/datasets", "/jobs", "/models"])
def test_forged_cursors(client: TestClient, listing: str, moment: str) -> None:
    cursor = base64.urlsafe_b64encode(f"{moment}|{uuid4()}".encode()).decode()
    answer = client.get(listing, params={"cursor": cursor})
    if answer.status_code != 200:
        assert_problem(answer, 400, "cursor")


def test_head_has_no_body(client: TestClient) -> None:
    answer = client.head("/datasets")
    assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")


@pytest.mark.parametrize("name", ["../manifest.json", "a%00", "weights", "..%5cx", "%2e%2e"])
def test_files_a_model_has_not(client: TestClient, encoder: UUID, name: str) -> None:
    answer = client.get(f"/models/{encoder}/files/{name}")
    assert answer.status_code in {404, 422}
    assert_problem(answer, answer.status_code)


@pytest.mark.parametrize(
    "name", ["A", "-a", "a b", "é", "a" * 101, "a%00", SOME_ID, UUID(SOME_ID).hex, ODD_ID]
)
def test_bad_alias_names(client: TestClient, encoder: UUID, name: str) -> None:
    answer = client.put(f"/aliases/{name}", json={"model_id": str(encoder)})
    assert answer.status_code in {400, 422}
    assert_problem(answer, answer.status_code, "name")


def test_request_id_is_taken_only_when_harmless(client: TestClient) -> None:
    good = client.get("/nothing", headers={"x-request-id": "abc-1.2"})
    assert assert_problem(good, 404)["request_id"] == "abc-1.2"
    bad = client.get("/nothing", headers={"x-request-id": "<script>" + "x" * 100})
    assert len(assert_problem(bad, 404)["request_id"]) == 32


def test_our_own_faults_say_nothing_of_our_insides(app: FastAPI, client: TestClient) -> None:
    store = app.state.store
    app.state.store = None
    try:
        answer = client.get(f"/images/{NOWHERE}/content")
        assert answer.status_code == 404
        answer = client.post("/jobs", json={"stage": "pretrain", "dataset_id": NOWHERE})
        assert answer.status_code == 404
        sessions, app.state.sessions = app.state.sessions, None
        assert_problem(client.get("/datasets"), 500, "our fault.*request_id")
    finally:
        app.state.store = store
        app.state.sessions = sessions


def test_health_of_the_database(client: TestClient, session: Callable[[], Session]) -> None:
    """After all this no connection was left in a transaction."""
    with session() as opened:
        stuck = opened.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' "
                "AND datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    assert stuck == 0
