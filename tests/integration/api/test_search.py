"""Searches, vectors to take away and evaluations over HTTP, with stored vectors of a real model."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from sqlalchemy.orm import Session

from core.db.models import Model
from core.search.stored import put_vectors
from tests.integration.api.problems import assert_problem
from tests.tiny_models import CLASSES

COUNT = 12
Add = Callable[..., Any]


def picture(number: int) -> bytes:
    """Unlike the others, so that an untrained model tells them apart."""
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((16, 16), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def stored(
    client: TestClient, add_dataset: Add, add_model: Add, session: Callable[[], Session]
) -> tuple[str, str, list[str]]:
    """Model, dataset and image ids; the vectors are those that /embed answers."""
    files = {f"p{number}.png": picture(number) for number in range(COUNT)}
    dataset_id, model_id = add_dataset(files), str(add_model(classes=CLASSES))
    items = client.get(f"/datasets/{dataset_id}/images").json()["items"]
    by_name = {item["names"][0]: item["id"] for item in items}
    names = list(files)
    vectors = []
    for start in range(0, COUNT, 6):
        images = [base64.b64encode(files[n]).decode() for n in names[start : start + 6]]
        answer = client.post("/embed", json={"model": model_id, "images": images}).json()
        vectors += [np.array(item["embedding"], dtype=np.float32) for item in answer["items"]]
    ids = [by_name[name] for name in names]
    with session() as opened, opened.begin():
        model = opened.get_one(Model, UUID(model_id))
        put_vectors(
            opened, model, UUID(dataset_id), image_ids=[UUID(i) for i in ids], vectors=vectors
        )
    return model_id, dataset_id, ids


def test_by_image_by_id_and_by_vector(
    client: TestClient, stored: tuple[str, str, list[str]]
) -> None:
    model_id, dataset_id, ids = stored
    where = {"model": model_id, "dataset_id": dataset_id, "limit": 4}
    image = base64.b64encode(picture(3)).decode()
    first = client.post("/search", json={**where, "image": image}).json()
    assert (first["model_id"], first["method"]) == (model_id, "exact")
    assert first["items"][0]["image_id"] == ids[3]
    assert first["items"][0]["name"] == "p3.png"
    assert first["items"][0]["distance"] == pytest.approx(0, abs=1e-4)
    by_id = client.post("/search", json={**where, "image_id": ids[3]}).json()["items"]
    assert ids[3] not in {item["image_id"] for item in by_id}
    vector = client.post("/embed", json={"model": model_id, "images": [image]}).json()
    asked = {**where, "vector": [7 * x for x in vector["items"][0]["embedding"]]}
    by_vector = client.post("/search", json=asked).json()["items"]
    assert [i["image_id"] for i in by_vector] == [i["image_id"] for i in first["items"]]


def test_by_an_image_as_a_file(client: TestClient, stored: tuple[str, str, list[str]]) -> None:
    model_id, dataset_id, _ = stored
    where: dict[str, Any] = {"model": model_id, "dataset_id": dataset_id, "limit": "4"}
    image = base64.b64encode(picture(3)).decode()
    by_json = client.post("/search", json={**where, "limit": 4, "image": image}).json()

    def sent(*files: bytes, **fields: Any) -> Any:
        parts = [("image", (f"{n}.png", file)) for n, file in enumerate(files)]
        return client.post("/search", data={**where, **fields}, files=parts)

    answer = sent(picture(3))
    assert answer.status_code == 200
    assert answer.json() == by_json
    none = sent(picture(3), labels=["bolt of none", "nut of none"]).json()["items"]
    assert none == []
    assert_problem(sent(b"none"), 422, "image:")
    assert_problem(sent(picture(3), picture(4)), 413, "more than 1")
    assert_problem(sent(picture(3), vector="[1]"), 400, "vector: found a text field")
    assert_problem(sent(picture(3), limit="0"), 422, "limit")
    assert_problem(sent(picture(3), lmit="3"), 422, "did you mean limit")
    no_file = client.post(
        "/search", content=b"--x--\r\n", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert_problem(no_file, 400, "no file|not a multipart form")


def test_labels_filter(client: TestClient, stored: tuple[str, str, list[str]]) -> None:
    model_id, dataset_id, ids = stored
    labels = [{"image_id": ids[1], "label": "bolt"}, {"image_id": ids[2], "label": "nut"}]
    sent = client.put(f"/datasets/{dataset_id}/labels", json={"labels": labels})
    assert sent.is_success, sent.text
    asked = {"model": model_id, "image_id": ids[0], "labels": ["bolt"]}
    [only] = client.post("/search", json=asked).json()["items"]
    assert (only["image_id"], only["label"]) == (ids[1], "bolt")


def test_what_cannot_be_searched_is_told(
    client: TestClient, stored: tuple[str, str, list[str]], add_model: Add
) -> None:
    model_id, _, ids = stored
    other = str(add_model(classes=CLASSES, seed=9))

    def asked(status: int, *said: str, **body: Any) -> None:
        assert_problem(client.post("/search", json={"model": model_id, **body}), status, *said)

    asked(422, "exactly one is needed, found none")
    asked(422, "found image_id and vector", image_id=ids[0], vector=[1.0])
    asked(422, "vector: found 1 numbers", vector=[1.0])
    asked(422, "only zeros", vector=[0.0] * 128)
    asked(422, "limit", image_id=ids[0], limit=1001)
    asked(422, "image:", image=base64.b64encode(b"none").decode())
    asked(409, "no index", image_id=ids[0], method="hnsw")
    asked(409, "run an embed job", model=other, image_id=ids[0])
    asked(404, "no image", image_id=str(uuid4()))
    asked(404, "no dataset", image_id=ids[0], dataset_id=str(uuid4()))


def test_vectors_are_taken_away_with_their_images(
    client: TestClient, stored: tuple[str, str, list[str]], add_model: Add
) -> None:
    model_id, dataset_id, ids = stored
    path = f"/models/{model_id}/embeddings"
    answer = client.get(f"{path}.npy", params={"dataset_id": dataset_id})
    vectors = np.load(io.BytesIO(answer.content))
    rows = client.get(f"{path}.csv", params={"dataset_id": dataset_id})
    assert rows.headers["etag"] == answer.headers["etag"]
    listed = [row["image_id"] for row in csv.DictReader(io.StringIO(rows.text))]
    assert sorted(listed) == sorted(ids)
    assert (vectors.shape, vectors.dtype) == ((COUNT, vectors.shape[1]), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    image = base64.b64encode(picture(3)).decode()
    body = {"model": model_id, "images": [image]}
    vector = client.post("/embed", json=body).json()["items"][0]["embedding"]
    np.testing.assert_allclose(vectors[listed.index(ids[3])], vector, atol=1e-3)
    half = client.get(f"{path}.npy", params={"dataset_id": dataset_id, "dtype": "float16"})
    assert np.load(io.BytesIO(half.content)).dtype == np.float16
    nothing = f"/models/{add_model(seed=5)}/embeddings.npy"
    assert_problem(client.get(nothing, params={"dataset_id": dataset_id}), 409, "embed job")


def test_an_evaluation_and_an_embed_job_are_ordered(
    client: TestClient, stored: tuple[str, str, list[str]], add_model: Add
) -> None:
    model_id, dataset_id, ids = stored
    label = {"labels": [{"image_id": ids[5], "label": "bolt"}]}
    assert client.put(f"/datasets/{dataset_id}/labels", json=label).is_success
    made = client.post(f"/models/{model_id}/evaluate", json={"dataset_id": dataset_id})
    assert made.status_code == 202
    job = client.get(made.headers["location"]).json()
    assert (job["stage"], job["state"], job["result"]) == ("evaluate", "queued", None)
    assert_problem(client.delete(f"/models/{model_id}"), 409, "unfinished job")
    body = {"stage": "embed", "dataset_id": dataset_id, "model_id": model_id}
    plan = client.post("/jobs", json=body).json()["plan"]
    assert (plan["images"], plan["index"]) == (COUNT, "none")
    encoder = f"/models/{add_model(seed=6)}/evaluate"
    answer = client.post(encoder, json={"dataset_id": dataset_id})
    assert_problem(answer, 422, "only a classifier")
    assert client.get(f"/models/{model_id}/reports").json() == []


def test_a_file_of_a_model_is_told_by_its_hash_and_read_in_parts(
    client: TestClient, add_model: Add
) -> None:
    path = f"/models/{add_model(seed=8)}/files/weights.safetensors"
    whole = client.get(path)
    tag = whole.headers["etag"]
    assert tag == f'"{hashlib.sha256(whole.content).hexdigest()}"'
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 304
    part = client.get(path, headers={"Range": "bytes=100-199", "If-Range": tag})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    stale = client.get(path, headers={"Range": "bytes=100-199", "If-Range": '"other"'})
    assert (stale.status_code, stale.content) == (200, whole.content)
    manifest = path.replace("weights.safetensors", "manifest.json")
    answer = client.get(manifest)
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
