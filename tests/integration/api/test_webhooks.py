"""Webhooks over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from core.db.webhooks import Webhook
from core.webhooks.delivery import Deliverer
from tests.integration.api.problems import assert_problem, pictures
from tests.webhook_receiver import receiving

URL = "https://example.com/hook"


def test_made_listed_and_deleted(client: TestClient, session: Callable[[], Session]) -> None:
    made = client.post("/webhooks", json={"url": URL})
    assert made.status_code == 201, made.text
    webhook = made.json()
    assert webhook["secret"].startswith("whsec_")
    assert webhook["events"] == ["job.cancelled", "job.crashed", "job.failed", "job.succeeded"]
    with session() as opened, opened.begin():
        assert len(opened.get_one(Webhook, webhook["id"]).secret) == len(webhook["secret"])
    listed = client.get("/webhooks")
    assert webhook["id"] in {item["id"] for item in listed.json()["items"]}
    assert "whsec_" not in listed.text, "shown once"
    path = f"/webhooks/{webhook['id']}"
    assert client.get(f"{path}/deliveries").json() == {"items": [], "next_cursor": None}
    assert client.delete(path).status_code == 204
    assert_problem(client.delete(path), 404, "webhook_id")


def test_addresses_inside_and_unknown_events_are_refused(client: TestClient) -> None:
    for url in ("https://10.0.0.1/", "http://example.com/", "file:///etc/passwd", "x"):
        assert_problem(client.post("/webhooks", json={"url": url}), 422, "url", url)
    body = {"url": URL, "events": ["job.exploded"]}
    assert_problem(client.post("/webhooks", json=body), 422, "events", "job.succeeded")
    assert_problem(client.post("/webhooks", json={"url": URL, "events": []}), 422, "events")


def test_a_project_has_so_many_at_most(client: TestClient, app: FastAPI) -> None:
    before, app.state.settings = (
        app.state.settings,
        app.state.settings.model_copy(update={"max_webhooks": 1}),
    )
    try:
        first = client.post("/webhooks", json={"url": URL}).json()
        second = client.post("/webhooks", json={"url": URL})
        assert_problem(second, 409, "the most it may have", "FEWLABELS_MAX_WEBHOOKS")
        client.delete(f"/webhooks/{first['id']}")
    finally:
        app.state.settings = before


def test_a_ping_and_a_cancelled_job_arrive(
    client: TestClient, app: FastAPI, add_dataset: Callable[..., str]
) -> None:
    settings = app.state.settings.model_copy(update={"webhook_hosts": "127.0.0.1"})
    before, app.state.settings = app.state.settings, settings
    try:
        with receiving() as receiver:
            webhook = client.post("/webhooks", json={"url": receiver.url}).json()
            path = f"/webhooks/{webhook['id']}"
            pinged = client.post(f"{path}/ping")
            assert (pinged.status_code, pinged.json()["state"]) == (202, "pending")
            order = {"stage": "pretrain", "dataset_id": add_dataset(pictures(2)), "batch_size": 2}
            job_id = client.post("/jobs", json=order).json()["id"]
            client.post(f"/jobs/{job_id}/cancel")
            deliverer = Deliverer(app.state.sessions, settings)
            assert deliverer.wake() == 2
            deliverer.close()
            items = client.get(f"{path}/deliveries").json()["items"]
            assert [item["state"] for item in items] == ["delivered", "delivered"]
            assert [item["event"] for item in items] == ["job.cancelled", "ping"]
            assert items[0]["job_id"] == job_id
            assert len(receiver.requests) == 2
            client.delete(path)
    finally:
        app.state.settings = before


def test_others_are_not_there(client: TestClient) -> None:
    for method, path in (("post", "/ping"), ("get", "/deliveries"), ("delete", "")):
        answer = client.request(method, f"/webhooks/{uuid4()}{path}")
        assert_problem(answer, 404, "no webhook")
