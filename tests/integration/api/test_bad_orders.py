"""Bad labels and jobs that make no sense are refused in words and change nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from tests.integration.api.problems import assert_problem, pictures

JSON = {"content-type": "application/json"}


NOWHERE = "00000000-0000-4000-8000-000000000000"


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "columns"),
        (b"name,class\na,b\n", 400, "label, split or both, and one of file, sha256"),
        (b"file,label\n", 422, "found none"),
        (b"file,label\n\xff,x\n", 400, "UTF-8; byte 11"),
        (b"file,label\np0.png,a\0b\n", 422, "line 2.*NUL"),
        (b"file,label\na\0,x\n", 422, "line 2.*NUL"),
        (b"file,label\nnope.png,x\n", 422, "line 2.*no such image"),
        (b"file,label\np0.png,x,y\n", 422, "line 2.*columns"),
        (b"file,label\np0.png\n", 422, "line 2.*fewer than the 2 columns"),
        (b"file,label\np0.png,\n", 422, "line 2.*empty.*null"),
        (b"file,label,label\np0.png,x,y\n", 400, "a column twice"),
        (b"image_id,label\n7,x\n", 422, "line 2"),
        (b"file,label\n,x\n", 422, "line 2.*at least one of"),
        (b"file,label\n" + b"y" * 140_000 + b",x\n", 400, "line 2 is not CSV"),
        (b"file,label," + b"y" * 140_000 + b"\np0.png,x,\n", 400, "is not CSV"),
        (b'file,label\n"p0.png,x\n', 422, "line 2"),
        (b"file,label\np0.png," + b"z" * 201 + b"\n", 422, "line 2.*200"),
    ],
)
def test_bad_csv(client: TestClient, dataset_id: str, body: bytes, status: int, said: str) -> None:
    answer = client.put(
        f"/datasets/{dataset_id}/labels", content=body, headers={"content-type": "text/csv"}
    )
    assert_problem(answer, status, said)


def test_many_faults_are_not_all_repeated(client: TestClient, dataset_id: str) -> None:
    body: dict[str, Any] = {"labels": [{"file": "x" * 2000}] * 100}
    problem = assert_problem(client.put(f"/datasets/{dataset_id}/labels", json=body), 422)
    assert 1 < len(problem["errors"]) <= 100
    body = {"labels": [{}] * 10_000}
    problem = assert_problem(client.put(f"/datasets/{dataset_id}/labels", json=body), 422, "more")
    assert len(problem["errors"]) <= 100


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"epochs": 10**30}, "epochs"),
    ({"epochs": 0}, "epochs"),
    ({"seed": 2**31}, "seed"),
    ({"seed": -1}, "seed"),
    ({"batch_size": 10**9}, "batch_size"),
    ({"learning_rate": 10**400}, "learning_rate"),
    ({"learning_rate": float("nan")}, "learning_rate"),
    ({"temperature": float("inf")}, "temperature"),
    ({"views": 10**20}, "views"),
    ({"encoder": "resnet9000"}, "encoder"),
    ({"image_size": 4}, "image_size"),
    ({"needs": NOWHERE}, "needs"),
    ({"model_id": "7"}, "model_id"),
    ({"epochs": [1]}, "epochs"),
    ({"epochs": "many\0"}, "epochs"),
    ({"epochs": True}, r"^pretrain\.epochs: .*integer; found True"),
    ({"epochs": "7"}, r"^pretrain\.epochs: .*integer"),
    ({"learning_rate": True}, r"^pretrain\.learning_rate: .*number; found True"),
    ({"seed": True}, "seed"),
    ({"use_labels": 1}, r"^pretrain\.use_labels: .*boolean"),
    ({"views": 3}, "views: .*2, 4, 8 or 16"),
    ({"views": True}, "views: .*2, 4, 8 or 16"),
    ({"budget_minutes": 0}, "budget_minutes"),
    ({"budget_minutes": 10_081}, "budget_minutes"),
    (
        {"budget_minutes": 5, "epochs": 7, "batch_size": 2},
        "epochs and budget_minutes: found 7 and 5",
    ),
    ({"budget_minutes": 1_440}, "budget_minutes: found 1440, a job may run for 1440 minutes"),
    ({"micro_batch_size": 1}, "micro_batch_size"),
    ({"projection_layers": 5}, "projection_layers"),
    ({"label_share": 1.0, "use_labels": True}, "label_share"),
    ({"clip_grad_norm": 0}, "clip_grad_norm"),
    ({"augmentation": "polaroid"}, "augmentation: .*microscopy.*satellite"),
    ({"augmentation_strength": 2.01}, "augmentation_strength"),
    ({"plateau_patience": 0}, "plateau_patience"),
    ({"train": "full"}, r"^pretrain\.train: there is no such field"),
    ({"method": "full"}, r"^pretrain\.method: there is no such field"),
]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("options", "said"), OPTIONS)
def test_bad_options(
    client: TestClient, dataset_id: str, options: dict[str, Any], said: str
) -> None:
    body = json.dumps({"stage": "pretrain", "dataset_id": dataset_id, **options})
    assert_problem(client.post("/jobs", content=body, headers=JSON), 422, said)


@pytest.mark.usefixtures("unchanged")
def test_jobs_that_make_no_sense(
    client: TestClient, dataset_id: str, classifier: UUID, encoder: UUID
) -> None:
    def refused(said: str, status: int = 422, **body: Any) -> None:
        assert_problem(client.post("/jobs", json={"dataset_id": dataset_id, **body}), status, said)

    refused("found 3 images.*at least 128", stage="pretrain")
    refused("at least 128", stage="pipeline")
    refused("found no labels", stage="finetune")
    refused("found an encoder", stage="distill", model_id=str(encoder))
    refused("model_id or needs", stage="distill")
    refused("no model", 404, stage="finetune", model_id=NOWHERE)
    refused("no model", 404, stage="pretrain", model_id=NOWHERE)
    refused("no job", 404, stage="finetune", needs=NOWHERE)
    refused("model_id and needs", stage="distill", model_id=str(classifier), needs=NOWHERE)
    refused(
        r"^finetune\.train: there is no such field; .*found 'full'", stage="finetune", train="full"
    )
    refused(r"^finetune\.method: .*supcon", stage="finetune", method="head")
    teacher: dict[str, Any] = {"stage": "distill", "model_id": str(classifier), "batch_size": 2}
    refused("student_model_id: no model", 404, **teacher, student_model_id=NOWHERE)
    refused("alpha: found 0.5 and no labels", **teacher, alpha=0.5)
    refused(
        "student: found 'resnet50'", **teacher, student="resnet50", student_model_id=str(encoder)
    )


def test_one_class_cannot_be_learnt(client: TestClient, add_dataset: Callable[..., str]) -> None:
    dataset_id = add_dataset(pictures(4))
    labels = {"labels": [{"file": f"p{n}.png", "label": "bolt"} for n in range(4)]}
    assert client.put(f"/datasets/{dataset_id}/labels", json=labels).status_code == 200
    answer = client.post("/jobs", json={"stage": "finetune", "dataset_id": dataset_id})
    assert_problem(answer, 422, "labels of one class")
    assert client.get("/jobs", params={"dataset_id": dataset_id}).json()["items"] == []


def test_too_many_classes_set_nothing(client: TestClient, add_dataset: Callable[..., str]) -> None:
    dataset_id = add_dataset(pictures(21))
    labels = {"labels": [{"file": f"p{n}.png", "label": f"c{n}"} for n in range(21)]}
    answer = client.put(f"/datasets/{dataset_id}/labels", json=labels)
    assert_problem(answer, 422, "found 21 classes; at most 20")
    assert client.get(f"/datasets/{dataset_id}").json()["label_count"] == 0


def test_a_fault_names_the_field_that_was_sent(client: TestClient, dataset_id: str) -> None:
    body = {"stage": "pretrain", "dataset_id": dataset_id, "batch_size": 1}
    assert_problem(client.post("/jobs", json=body), 422, r"^pretrain\.batch_size: .*found 1")


@pytest.mark.parametrize("body", [b"\xff", b"[" * 100_000, b'{"name": ' + b"9" * 5_000 + b"}"])
def test_json_that_cannot_be_read(client: TestClient, body: bytes) -> None:
    answer = client.post("/datasets", content=body, headers={"content-type": "application/json"})
    assert_problem(answer, 400, "^body: not JSON")
