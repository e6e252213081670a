"""Models answer over HTTP, and the service says when it cannot."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import update
from sqlalchemy.orm import Session

from api.main import create_app
from core.config import Settings
from core.db.models import Model
from tests.integration.api.problems import assert_problem, picture, pictures
from tests.tiny_models import CLASSES

Add = Callable[..., Any]


GONE = SecretStr("redis://127.0.0.1:1/0")


BASE64 = base64.b64encode(picture(1)).decode()


def test_embed_and_predict(client: TestClient, add_model: Add) -> None:
    model_id = str(add_model(classes=CLASSES))
    body = {"model": model_id, "images": [BASE64, f"data:image/png;base64,{BASE64}"]}
    vectors = client.post("/embed", json=body).json()
    first, second = (item["embedding"] for item in vectors["items"])
    assert vectors["model_id"] == model_id
    assert len(first) == vectors["dimension"]
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert first == second

    said = client.post("/predict", json={**body, "top_k": 2}).json()
    for item in said["items"]:
        scored = item["predictions"]
        assert len(scored) == 2
        assert item["label"] == scored[0]["label"]
        assert scored[0]["probability"] >= scored[1]["probability"]
    everything = client.post("/predict", json={**body, "top_k": 1000}).json()["items"][0]
    assert sorted(p["label"] for p in everything["predictions"]) == sorted(CLASSES)
    assert sum(p["probability"] for p in everything["predictions"]) == pytest.approx(1, abs=1e-5)

    files = [("files", ("ü.png", picture(1)))]
    by_form = client.post("/predict", data={"model": model_id, "top_k": "2"}, files=files).json()
    assert by_form["items"][0]["name"] == "ü.png"
    assert by_form["items"][0]["predictions"] == said["items"][0]["predictions"]


def test_metrics_of_any_depth_are_told_as_they_are(
    client: TestClient, add_model: Add, session: Callable[[], Session]
) -> None:
    recall = {"value": 0.5, "interval_95": [0.1, 0.9], "support": 4}
    metrics = {
        "validation": {"per_class": {"ü/\n": {"recall": recall}}, "confusion": [[2, 0], [1, 1]]},
        "baseline": None,
        "agreement": 0.97,
    }
    with session() as opened, opened.begin():
        model = opened.get_one(Model, add_model(classes=CLASSES, seed=3))
        manifest = {**model.manifest, "metrics": metrics}
        opened.execute(update(Model).where(Model.id == model.id).values(manifest=manifest))
    assert client.get(f"/models/{model.id}").json()["manifest"]["metrics"] == metrics
    file = client.get(f"/models/{model.id}/files/manifest.json")
    assert file.json()["metrics"] == metrics


def test_bad_images_fail_alone(client: TestClient, add_model: Add) -> None:
    model_id = str(add_model(classes=CLASSES))
    bad = base64.b64encode(b"no picture").decode()
    body = {"model": model_id, "images": ["!", BASE64, bad, BASE64]}
    items = client.post("/predict", json=body).json()["items"]
    assert [item["error"] and item["error"]["code"] for item in items] == [
        "ImageInvalid",
        None,
        "ImageInvalid",
        None,
    ]
    assert [item["label"] is None for item in items] == [True, False, True, False]
    alone = client.post("/predict", json={"model": model_id, "images": [BASE64]}).json()["items"]
    assert items[1]["predictions"] == items[3]["predictions"]
    assert items[1]["label"] == alone[0]["label"]


def test_alias_promotes_and_rolls_back(client: TestClient, add_model: Add) -> None:
    one, two = (str(add_model(classes=CLASSES, seed=seed)) for seed in (1, 2))

    def put(model_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = client.put("/aliases/live", json={"model_id": model_id}).json()
        return answer

    def answering() -> str:
        body = {"model": "live", "images": [BASE64]}
        return str(client.post("/predict", json=body).json()["model_id"])

    assert put(one)["previous_model_id"] is None
    assert answering() == one
    assert put(two)["previous_model_id"] == one
    assert put(two)["previous_model_id"] == one  # again is the same as once
    assert answering() == two
    assert_problem(client.delete(f"/models/{two}"), 409, "live")
    for at, before in ((one, two), (two, one), (one, two)):
        back = client.post("/aliases/live/rollback").json()
        assert (back["model_id"], back["previous_model_id"]) == (at, before)
        assert answering() == at
    assert client.delete(f"/models/{two}").status_code == 204
    assert client.get("/aliases").json()[0]["previous_model_id"] is None
    assert_problem(client.post("/aliases/live/rollback"), 409, "no model to go back to")
    assert_problem(client.post("/aliases/none/rollback"), 404, "none")
    assert client.delete("/aliases/live").status_code == 204
    body = {"model": "live", "images": [BASE64]}
    assert_problem(client.post("/predict", json=body), 404, "live")


def test_model_files_have_the_stated_hashes(client: TestClient, add_model: Add) -> None:
    model_id = add_model()
    model = client.get(f"/models/{model_id}").json()
    stated = model["manifest"]["files"]["weights.safetensors"]
    weights = client.get(f"/models/{model_id}/files/weights.safetensors").content
    assert hashlib.sha256(weights).hexdigest() == stated["sha256"]
    assert client.get(f"/models/{model_id}/files/manifest.json").json() == model["manifest"]
    problem = client.get(f"/models/{model_id}/files/optimizer.pt")
    assert_problem(problem, 404, "it has manifest.json, weights.safetensors")


def test_corrupt_weights_are_not_served(
    client: TestClient, add_model: Add, app: FastAPI, settings: Settings
) -> None:
    model_id = str(add_model(classes=CLASSES, seed=77))
    stated = client.get(f"/models/{model_id}").json()["manifest"]["files"]
    sha256 = stated["weights.safetensors"]["sha256"]
    (path,) = (settings.data_dir / "blobs").rglob(sha256)
    whole = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(whole[:-1] + b"\0" if whole[-1] else whole[:-1] + b"\1")
    body = {"model": model_id, "images": [BASE64]}
    assert_problem(client.post("/predict", json=body), 503, "sha256", sha256)
    path.write_bytes(whole)
    assert client.post("/predict", json=body).status_code == 200


def test_ready_until_the_broker_is_gone(client: TestClient, settings: Settings) -> None:
    body = client.get("/readyz").json()
    assert body == {
        "ready": True,
        "checks": {"database": "ok", "broker": "ok", "blobs": "ok", "engine": "ok"},
    }
    gone = settings.model_copy(update={"broker_url": GONE})
    with TestClient(create_app(gone), raise_server_exceptions=False) as calling:
        answer = calling.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"]["broker"] == "does not answer"
        assert "127.0.0.1" not in answer.text
        assert calling.get("/healthz").status_code == 200
        made = calling.post("/datasets", json={"name": f"x{uuid4()}"})
        assert made.status_code == 201


def test_without_a_database_everything_is_503(settings: Settings) -> None:
    url = SecretStr("postgresql://nobody@127.0.0.1:1/none")
    gone = settings.model_copy(update={"database_url": url})
    with TestClient(create_app(gone), raise_server_exceptions=False) as calling:
        problem = calling.get("/datasets")
        assert_problem(problem, 503, "the database does not answer")
        assert problem.headers["retry-after"]
        body = {"model": "x", "images": [BASE64]}
        assert_problem(calling.post("/embed", json=body), 503)
        assert calling.get("/readyz").json()["checks"]["database"] == "does not answer"
        assert calling.get("/healthz").status_code == 200


def test_examples_of_the_document_work_when_pasted(
    client: TestClient, add_dataset: Add, add_model: Add
) -> None:
    document = client.get("/openapi.json").json()

    def examples(method: str, path: str) -> list[dict[str, Any]]:
        content = document["paths"][path][method]["requestBody"]["content"]["application/json"]
        if "examples" in content:
            return [dict(entry["value"]) for entry in content["examples"].values()]
        schema = document["components"]["schemas"][content["schema"]["$ref"].split("/")[-1]]
        return [dict(example) for example in schema["examples"]]

    for body in examples("post", "/datasets"):
        assert client.post("/datasets", json=body).status_code == 201
    dataset_id = add_dataset({"a.png": picture(1), "b.png": picture(2)})
    for body in examples("put", "/datasets/{dataset_id}/labels"):
        assert client.put(f"/datasets/{dataset_id}/labels", json=body).json()["labelled"] == 2
    model_id = str(add_model(classes=CLASSES))
    for body in examples("put", "/aliases/{name}"):
        body["model_id"] = model_id  # the only word that a reader has to fill in
        assert client.put("/aliases/production", json=body).status_code == 200
    for path in ("/embed", "/predict"):
        for body in examples("post", path):
            assert client.post(path, json=body).json()["items"][0]["error"] is None
    for body in examples("post", "/jobs"):
        body["dataset_id"] = dataset_id
        answer = client.post("/jobs", json=body)  # two images are too few for most of them
        assert answer.status_code in {202, 404, 422}
        if answer.status_code != 202:
            problem = assert_problem(answer, answer.status_code)
            assert not problem["type"].endswith("RequestInvalid")


def test_a_job_is_kept_though_the_broker_is_gone(
    settings: Settings, client: TestClient, add_dataset: Add
) -> None:
    dataset_id = add_dataset(pictures(2))
    gone = settings.model_copy(update={"broker_url": GONE})
    with TestClient(create_app(gone), raise_server_exceptions=False) as calling:
        body = {"stage": "pretrain", "dataset_id": dataset_id, "batch_size": 2}
        made = calling.post("/jobs", json=body)
        assert made.status_code == 202
    assert client.get(f"/jobs/{made.json()['id']}").json()["state"] == "queued"


def test_metrics_name_routes_not_ids(client: TestClient, add_dataset: Add) -> None:
    dataset_id = add_dataset()
    assert client.get(f"/datasets/{dataset_id}").is_success
    text = client.get("/metrics").text
    assert 'route="/datasets/{dataset_id}"' in text
    assert dataset_id not in text
    assert UUID(dataset_id)
