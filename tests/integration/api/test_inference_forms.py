"""The same images in every form that is taken give the same answers in every form that is given."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from api.schemas.inference import EmbedOut, PredictOut
from tests.integration.api.problems import assert_problem, picture
from tests.tiny_models import CLASSES

Vectors = NDArray[np.float32]
PICTURES = [picture(seed) for seed in (1, 2, 3)]
BASE64 = [base64.b64encode(data).decode() for data in PICTURES]
FILES = [("files", (f"{n}.png", data)) for n, data in enumerate(PICTURES)]


def wanted(client: TestClient, model: UUID) -> Vectors:
    answer = client.post("/embed", json={"model": str(model), "images": BASE64})
    assert EmbedOut.model_validate(answer.json()).dimension > 1
    return np.array([item["embedding"] for item in answer.json()["items"]], dtype=np.float32)


def same(found: Any, expected: Vectors) -> None:
    np.testing.assert_allclose(np.asarray(found, dtype=np.float32), expected, atol=1e-6)


def test_a_form_keeps_the_order_and_the_names(client: TestClient, classifier: UUID) -> None:
    answer = client.post("/embed", data={"model": str(classifier)}, files=FILES).json()
    same([item["embedding"] for item in answer["items"]], wanted(client, classifier))
    assert [item["name"] for item in answer["items"]] == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "application/octet-stream"])
def test_one_raw_image(client: TestClient, classifier: UUID, kind: str) -> None:
    sent: dict[str, Any] = {"content": PICTURES[1], "headers": {"content-type": kind}}
    answer = client.post(f"/embed?model={classifier}", **sent).json()
    same(answer["items"][0]["embedding"], wanted(client, classifier)[1])
    answer = client.post(f"/predict?model={classifier}&top_k=1", **sent).json()
    assert len(answer["items"][0]["predictions"]) == 1
    assert_problem(client.post("/embed", **sent), 422, "model: Field required")
    assert_problem(client.post(f"/predict?model={classifier}&top_k=x", **sent), 422, "top_k")
    sent["content"] = b"no image"
    assert_problem(client.post(f"/embed?model={classifier}", **sent), 422, "image")


def test_images_of_a_dataset(
    client: TestClient, classifier: UUID, add_dataset: Callable[..., str]
) -> None:
    dataset = add_dataset({f"{n}.png": data for n, data in enumerate(PICTURES)})
    listed = client.get(f"/datasets/{dataset}/images").json()["items"]
    ids = {item["names"][0] if "names" in item else item["name"]: item["id"] for item in listed}
    asked = [ids["2.png"], str(uuid4()), ids["0.png"]]
    answer = client.post("/embed", json={"model": str(classifier), "image_ids": asked}).json()
    items = EmbedOut.model_validate(answer).items
    assert [str(item.image_id) for item in items] == asked
    same([items[0].embedding, items[2].embedding], wanted(client, classifier)[[2, 0]])
    assert items[1].error is not None
    assert items[1].error.code == "ImageNotFound"
    nobody = {"model": str(classifier), "image_ids": [str(uuid4())]}
    assert_problem(client.post("/predict", json=nobody), 404, "image_ids.0")
    both = {"model": str(classifier), "image_ids": asked, "images": BASE64}
    assert_problem(client.post("/predict", json=both), 422, "images, image_ids: found both")
    neither = {"model": str(classifier)}
    assert_problem(client.post("/predict", json=neither), 422, "images, image_ids: found neither")
    many = {"model": str(classifier), "image_ids": asked * 3}
    assert_problem(client.post("/predict", json=many), 413, "found 9; at most 8")


def test_stored_images_are_their_owners_and_need_the_scope_read(
    client: TestClient,
    guarded_client: TestClient,
    key: Callable[..., dict[str, str]],
    add_dataset: Callable[..., str],
    add_model: Callable[..., UUID],
) -> None:
    dataset = add_dataset({"own.png": PICTURES[0]})
    theirs = client.get(f"/datasets/{dataset}/images").json()["items"][0]["id"]
    body = {"model": str(add_model(project="forms")), "image_ids": [theirs]}
    answer = guarded_client.post("/embed", json=body, headers=key("forms", "infer", "read"))
    assert_problem(answer, 404, "no image has the id")
    answer = guarded_client.post("/embed", json=body, headers=key("forms", "infer"))
    assert_problem(answer, 403, "image_ids.*scope read")


def test_vectors_as_base64(client: TestClient, classifier: UUID) -> None:
    body = {"model": str(classifier), "images": [*BASE64, "!!!"], "encoding_format": "base64"}
    items = client.post("/embed", json=body).json()["items"]
    vectors = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in items[:3]]
    same(vectors, wanted(client, classifier))
    assert items[3].get("embedding") is None
    form = {"model": str(classifier), "encoding_format": "hex"}
    assert_problem(client.post("/embed", data=form, files=FILES), 422, "encoding_format")


def test_vectors_as_a_numpy_file(client: TestClient, classifier: UUID) -> None:
    images = [BASE64[0], "!!!", BASE64[2]]
    headers = {"accept": "application/x-npy"}
    body = {"model": str(classifier), "images": images}
    answer = client.post("/embed", json=body, headers=headers)
    assert answer.headers["content-type"] == "application/x-npy"
    assert answer.headers["x-fewlabels-failed"] == "1"
    assert answer.headers["x-fewlabels-model"] == str(classifier)
    rows = np.load(io.BytesIO(answer.content), allow_pickle=False)
    assert (rows.dtype, math.isnan(rows[1].max())) == (np.dtype("<f4"), True)
    same(rows[[0, 2]], wanted(client, classifier)[[0, 2]])
    body = {"model": str(classifier), "images": ["!!!"]}
    assert_problem(client.post("/embed", json=body, headers=headers), 422, "not base64")


def test_top_k_and_unsure(client: TestClient, classifier: UUID) -> None:
    body = {"model": str(classifier), "images": [*BASE64, "!!!"]}
    sure = PredictOut.model_validate(client.post("/predict", json=body).json())
    for item in sure.items[:3]:
        assert item.predictions is not None
        assert {scored.label for scored in item.predictions} == set(CLASSES)
        assert sum(scored.probability for scored in item.predictions) == pytest.approx(1)
        assert (item.label, item.unsure) == (item.predictions[0].label, False)
    first = sure.items[0].predictions
    assert first is not None
    just_below, just_above = first[0].probability - 1e-6, first[0].probability + 1e-6
    for least, unsure in ((just_below, False), (just_above, True)):
        asked = {**body, "images": BASE64[:1], "min_confidence": least, "top_k": 2}
        [item] = client.post("/predict", json=asked).json()["items"]
        assert (item["unsure"], item["label"] is None) == (unsure, unsure)
        assert len(item["predictions"]) == 2
    form = {"model": str(classifier), "min_confidence": "1.5"}
    assert_problem(client.post("/predict", data=form, files=FILES), 422, "min_confidence")


@pytest.mark.parametrize("name", ["images", "image_ids", "topk"])
def test_a_form_tells_what_it_does_not_take(
    client: TestClient, classifier: UUID, name: str
) -> None:
    form = {"model": str(classifier), name: "x"}
    answer = client.post("/predict", data=form, files=FILES)
    assert_problem(answer, 422 if name == "topk" else 400, name)
