"""Keys, scopes and the wall between projects."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from api.main import create_app
from core import auth
from core.config import Settings
from core.errors import NotFound
from tests.integration.api.problems import assert_problem, picture, pictures
from tests.tiny_models import CLASSES

Add = Callable[..., Any]


BASE64 = base64.b64encode(picture(1)).decode()


@pytest.fixture(scope="module")
def keyed(app: FastAPI, client: TestClient, settings: Settings) -> Any:
    """The same database, but every call needs a key: a function from a key's wishes to a client."""
    guarded = create_app(settings.model_copy(update={"auth_mode": "keys"}))
    with TestClient(guarded, raise_server_exceptions=False) as calling:

        def with_key(*scopes: str, project: str = "default", **wishes: Any) -> TestClient:
            with app.state.sessions.begin() as session:
                key, secret = auth.create_key(
                    session, project=project, name="k", scopes=scopes, **wishes
                )
                calling.key_id = key.id  # type: ignore[attr-defined]
            calling.headers = {"authorization": f"Bearer {secret}"}
            return calling

        yield with_key


def test_keys(keyed: Any, session: Callable[[], Session]) -> None:
    caller = keyed("read", "write", "infer")
    assert caller.get("/datasets").status_code == 200
    with session() as opened, opened.begin():
        auth.revoke_key(opened, caller.key_id)
    past = datetime.now(UTC) - timedelta(seconds=1)
    wrong = ["", "Bearer", "Bearer fl_wrong", "Basic Zm9vOmJhcg==", "Bearer " + "é" * 10]
    revoked = [dict(caller.headers), dict(keyed("read", expires_at=past).headers)]
    for headers in [*({"authorization": text.encode()} for text in wrong), *revoked, {}]:
        caller.headers = {}
        for method, path in (
            ("GET", "/datasets"),
            ("POST", "/embed"),
            ("POST", "/jobs"),
            ("POST", f"/datasets/{uuid4()}/images"),
            ("PUT", f"/datasets/{uuid4()}/labels"),
        ):
            answer = caller.request(method, path, headers=headers)
            assert_problem(answer, 401, "API key")
            assert answer.headers["www-authenticate"] == "Bearer"
    assert caller.get("/healthz").status_code == 200


@pytest.mark.parametrize("scope", ["read", "write", "infer", "admin"])
def test_scopes(keyed: Any, scope: str) -> None:
    caller = keyed(scope)
    answers = {
        "read": caller.get("/datasets"),
        "write": caller.post("/datasets", json={"name": f"x{uuid4()}"}),
        "infer": caller.post("/embed", json={"model": "x", "images": [BASE64]}),
    }
    for needed, answer in answers.items():
        if scope in {needed, "admin"}:
            assert answer.status_code in {200, 201, 404}, answer.text
        else:
            assert_problem(answer, 403, f"scopes {scope}; this operation needs {needed}")


def test_another_projects_things_are_not_there(
    keyed: Any, client: TestClient, add_dataset: Add, add_model: Add
) -> None:
    dataset_id = add_dataset(pictures(3))
    image_id = client.get(f"/datasets/{dataset_id}/images").json()["items"][0]["id"]
    body = {"stage": "pretrain", "dataset_id": dataset_id, "batch_size": 2}
    job = client.post("/jobs", json=body).json()
    job_id, snapshot_id = job["id"], job["snapshot_id"]
    model_id = str(add_model(classes=CLASSES))
    assert client.put("/aliases/ours", json={"model_id": model_id}).is_success
    stranger = keyed("admin", project="strangers")
    labels = {"labels": [{"image_id": image_id, "label": "x"}]}
    own = stranger.post("/datasets", json={"name": f"x{uuid4()}"}).json()["id"]
    files = {"files": ("a.png", picture(1))}
    for method, path, sent in (
        ("GET", f"/datasets/{dataset_id}", None),
        ("DELETE", f"/datasets/{dataset_id}", None),
        ("GET", f"/datasets/{dataset_id}/images", None),
        ("PUT", f"/datasets/{dataset_id}/labels", labels),
        ("GET", f"/datasets/{dataset_id}/labels.csv", None),
        ("GET", f"/datasets/{dataset_id}/labels/history", None),
        ("GET", f"/snapshots/{snapshot_id}", None),
        ("GET", f"/snapshots/{snapshot_id}/items", None),
        ("GET", f"/images/{image_id}/content", None),
        ("GET", f"/images/{image_id}/thumbnail", None),
        ("POST", "/jobs", body),
        ("POST", "/jobs", {"stage": "finetune", "dataset_id": own, "model_id": model_id}),
        ("POST", "/jobs", {"stage": "finetune", "dataset_id": own, "needs": job_id}),
        ("GET", f"/jobs/{job_id}", None),
        ("GET", f"/jobs/{job_id}/metrics", None),
        ("POST", f"/jobs/{job_id}/cancel", None),
        ("POST", f"/jobs/{job_id}/retry", None),
        ("GET", f"/models/{model_id}", None),
        ("GET", f"/models/{model_id}/files/manifest.json", None),
        ("DELETE", f"/models/{model_id}", None),
        ("PUT", "/aliases/theirs", {"model_id": model_id}),
        ("DELETE", "/aliases/ours", None),
        ("POST", "/predict", {"model": model_id, "images": [BASE64]}),
        ("POST", "/embed", {"model": "ours", "images": [BASE64]}),
    ):
        problem = assert_problem(stranger.request(method, path, json=sent), 404)
        assert problem["type"].removeprefix("urn:fewlabels:problem:") in {
            kind.__name__ for kind in NotFound.__subclasses__()
        }
    assert_problem(stranger.post(f"/datasets/{dataset_id}/images", files=files), 404)
    assert_problem(stranger.put(f"/datasets/{own}/labels", json=labels), 422, "no such image")
    for listing in ("datasets", "jobs", "models"):
        ids = {item["id"] for item in stranger.get(f"/{listing}").json()["items"]}
        assert not ids & {dataset_id, job_id, model_id}
    assert stranger.get("/aliases").json() == []
    assert client.get(f"/jobs/{job_id}").json()["state"] == "queued"
    assert client.get(f"/datasets/{dataset_id}").json()["label_count"] == 0
    assert stranger.post("/datasets", json={"name": "same"}).status_code == 201
    assert client.post("/datasets", json={"name": "same"}).status_code == 201
