"""The examples of /docs work when they are pasted: they name what is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from fastapi.testclient import TestClient

from api.schemas.jobs import JOB_EXAMPLES
from tests.integration.api.problems import pictures
from tests.tiny_models import CLASSES


def body_of(client: TestClient, path: str, method: str, example: str | None = None) -> Any:
    document = client.get("/openapi.json").json()
    content = document["paths"][path][method]["requestBody"]["content"]["application/json"]
    if example is not None:
        return content["examples"][example]["value"]
    name = content["schema"]["$ref"].rsplit("/", 1)[-1]
    return document["components"]["schemas"][name]["examples"][0]


def test_examples_work_as_they_are(
    client: TestClient, add_dataset: Callable[..., str], add_model: Callable[..., UUID]
) -> None:
    assert client.post("/datasets", json=body_of(client, "/datasets", "post")).status_code == 201
    dataset_id = add_dataset(pictures(130))
    encoder_id, classifier_id = add_model(), add_model(classes=CLASSES)
    labels = body_of(client, "/datasets/{dataset_id}/labels", "put")
    assert client.put(f"/datasets/{dataset_id}/labels", json=labels).status_code == 200
    for name in JOB_EXAMPLES:
        answer = client.post("/jobs", json=body_of(client, "/jobs", "post", name))
        assert answer.status_code == 202, f"{name}: {answer.text}"
        assert answer.json()["dataset_id"] == dataset_id
    used = body_of(client, "/jobs", "post", "finetune")["model_id"]
    assert used == str(encoder_id)
    alias = body_of(client, "/aliases/{name}", "put")
    assert client.put("/aliases/first", json=alias).json()["model_id"] == str(classifier_id)
    for path in ("/predict", "/embed"):
        body = body_of(client, path, "post")
        assert body["model"] == "first"
        assert client.post(path, json=body).status_code == 200
