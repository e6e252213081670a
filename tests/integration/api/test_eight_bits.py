"""A classifier in eight bits over HTTP: /predict by its file alone, /embed by the exact one."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from fastapi.testclient import TestClient

from core.config import Settings
from core.images.decoding import decode
from core.learning.preprocessing import Preprocessing
from core.learning.runtimes.onnx import onnxruntime_run
from core.storage.store import open_store
from tests.integration.api.test_export import turned_photo
from tests.tiny_models import CLASSES

FILES = ("model.onnx", "model-int8.onnx")


def asked(client: TestClient, path: str, model_id: UUID) -> dict[str, Any]:
    body = {"model": str(model_id), "images": [base64.b64encode(turned_photo()).decode()]}
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["items"][0])


def test_classes_are_those_of_the_file_and_vectors_those_of_the_exact_one(
    client: TestClient, add_model: Callable[..., UUID], tmp_path: Path
) -> None:
    model_id = add_model(classes=CLASSES, seed=71, int8=True, head_std=1.0)
    manifest = client.get(f"/models/{model_id}").json()["manifest"]
    assert manifest["runtime"]["predict"] == "onnxruntime-int8"
    runs = []
    for name in FILES:
        path = tmp_path / name
        path.write_bytes(client.get(f"/models/{model_id}/files/{name}").content)
        runs.append(onnxruntime_run(path, threads=1))
    photo = turned_photo()
    pixels = decode(photo, max_bytes=len(photo), max_pixels=10**7).pixels_HWC
    canvas = Preprocessing.from_dict(manifest["preprocessing"]).canvas(pixels)
    (exact_vectors, exact), (rounded_vectors, rounded) = (run(canvas[None]) for run in runs)
    assert exact is not None
    assert rounded is not None

    predicted = asked(client, "/predict", model_id)
    by_name = {said["label"]: said["probability"] for said in predicted["predictions"]}
    found = [by_name[name] for name in CLASSES]
    np.testing.assert_allclose(found, rounded[0], atol=1e-5)
    assert np.abs(exact - rounded).max() > 1e-4
    embedded = asked(client, "/embed", model_id)
    np.testing.assert_allclose(embedded["embedding"], exact_vectors[0], atol=1e-5)
    assert np.abs(exact_vectors - rounded_vectors).max() > 1e-4


def test_a_damaged_file_refuses_classes_and_not_vectors(
    client: TestClient, add_model: Callable[..., UUID], settings: Settings
) -> None:
    model_id = add_model(classes=CLASSES, seed=72, int8=True, head_std=1.0)
    sha256 = client.get(f"/models/{model_id}").json()["manifest"]["files"][FILES[1]]["sha256"]
    store = open_store(settings.store_url)
    sound = store.get(f"models/{sha256}")
    store.delete(f"models/{sha256}")  # a store keeps what it has under a hash
    store.put(f"models/{sha256}", sound[:-1] + bytes([sound[-1] ^ 1]))
    body = {"model": str(model_id), "images": [base64.b64encode(turned_photo()).decode()]}
    answer = client.post("/predict", json=body)
    assert answer.status_code == 503
    assert answer.json()["type"].endswith("ArtifactCorrupt")
    assert len(asked(client, "/embed", model_id)["embedding"]) > 0
    # Repaired in the store it is taken again: nothing of the damage was kept.
    store.delete(f"models/{sha256}")
    store.put(f"models/{sha256}", sound)
    assert asked(client, "/predict", model_id)["predictions"]


@pytest.mark.parametrize("name", FILES)
def test_the_manifest_lists_the_file(
    client: TestClient, add_model: Callable[..., UUID], name: str
) -> None:
    model_id = add_model(classes=CLASSES, seed=71, int8=True, head_std=1.0)
    stated = client.get(f"/models/{model_id}").json()["manifest"]["files"][name]
    answer = client.get(f"/models/{model_id}/files/{name}")
    assert len(answer.content) == stated["bytes"]
