"""What is asked for reaches the plan, from models and jobs of one's own only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update
from sqlalchemy.orm import Session

from core.db.models import Job, Model
from tests.integration.api.problems import assert_problem, pictures
from tests.tiny_models import CLASSES, SIDE

COLOURED = "resnet10_tiny", SIDE, 3


@pytest.fixture(scope="module")
def labelled(client: TestClient, add_dataset: Callable[..., str]) -> str:
    """Eight images, four of them with labels of two classes."""
    dataset_id = add_dataset(pictures(8))
    labels = [{"file": f"p{n}.png", "label": CLASSES[n % 2]} for n in range(4)]
    assert client.put(f"/datasets/{dataset_id}/labels", json={"labels": labels}).is_success
    return dataset_id


@pytest.fixture(scope="module")
def plan_of(client: TestClient, labelled: str) -> Callable[..., Any]:
    def plan(stage: str, **options: Any) -> Any:
        body = {"stage": stage, "dataset_id": labelled, **options}
        answer = client.post("/jobs", json=body)
        assert answer.status_code == 202, answer.text
        return answer.json()["plan"]

    return plan


def network(plan: dict[str, Any]) -> tuple[Any, ...]:
    return plan["encoder"], plan["image_size"], plan["channels"]


def test_a_budget_in_minutes(plan_of: Callable[..., Any]) -> None:
    plan = plan_of("pretrain", batch_size=8, budget_minutes=2.5)
    assert (plan["budget_minutes"], plan["epochs"], plan["steps"]) == (2.5, None, None)


def test_options_that_may_be_null(plan_of: Callable[..., Any]) -> None:
    null = {"clip_grad_norm": None, "micro_batch_size": None, "plateau_patience": None}
    plan = plan_of("pretrain", batch_size=8, **null)
    assert {name: plan[name] for name in null} == null


def test_pretraining_goes_on_from_an_encoder(plan_of: Callable[..., Any], encoder: UUID) -> None:
    plan = plan_of("pretrain", batch_size=8, model_id=str(encoder), use_labels=True)
    assert network(plan) == COLOURED
    assert (plan["stem"], plan["label_share"]) == ("small", 0.25)


def test_pretraining_goes_on_from_the_encoder_of_a_classifier(
    plan_of: Callable[..., Any], classifier: UUID
) -> None:
    plan = plan_of("pretrain", batch_size=8, model_id=str(classifier))
    assert (*network(plan), plan["stem"]) == (*COLOURED, "small")


def test_a_job_that_needs_one_planned_by_the_first_version(
    client: TestClient, labelled: str, plan_of: Callable[..., Any], session: Callable[[], Session]
) -> None:
    body = {"stage": "pretrain", "dataset_id": labelled, "batch_size": 8}
    needed = client.post("/jobs", json=body).json()
    later = {"stem", "init", "projection_layers", "projection_dim", "micro_batch_size"}
    old = {name: value for name, value in needed["plan"].items() if name not in later}
    with session() as opened, opened.begin():
        opened.execute(update(Job).where(Job.id == UUID(needed["id"])).values(plan=old))
    plan = plan_of("finetune", needs=needed["id"])
    assert (plan["stem"], plan["layer"]) == (needed["plan"]["stem"], "encoder")


def test_a_pipeline_that_goes_on_from_models(
    client: TestClient, labelled: str, encoder: UUID
) -> None:
    chosen = {"batch_size": 8, "budget_minutes": 1}
    body = {
        "stage": "pipeline",
        "dataset_id": labelled,
        "pretrain": {**chosen, "model_id": str(encoder)},
        "finetune": {"method": "linear", "baseline": True},
        "distill": {**chosen, "student_model_id": str(encoder), "alpha": 0.5},
    }
    answer = client.post("/jobs", json=body)
    assert answer.status_code == 202, answer.text
    pretrain, finetune, distill = answer.json()["jobs"]
    assert {network(job["plan"]) for job in (pretrain, finetune, distill)} == {COLOURED}
    assert pretrain["spec"]["model_id"] == distill["plan"]["student_model_id"] == str(encoder)
    assert (finetune["plan"]["layer"], finetune["plan"]["method"]) == ("auto", "linear")
    assert finetune["plan"]["baseline_plan"]["method"] == "full"
    assert distill["plan"]["alpha"] == 0.5


def test_the_projection_is_there_when_the_model_has_one(
    plan_of: Callable[..., Any],
    add_model: Callable[..., UUID],
    session: Callable[[], Session],
) -> None:
    with session() as opened, opened.begin():
        model = opened.get_one(Model, add_model(seed=7))
        kept = {**model.manifest, "projection": {"layers": 2}}
        opened.execute(update(Model).where(Model.id == model.id).values(manifest=kept))
    assert plan_of("finetune", model_id=str(model.id), layer="projection")["layer"] == "projection"
    assert plan_of("finetune", model_id=str(model.id))["layer"] == "auto"
    assert plan_of("finetune", model_id=str(add_model(seed=8)))["layer"] == "encoder"


def test_students_of_other_projects_are_not_there(
    client: TestClient, labelled: str, classifier: UUID, add_model: Callable[..., UUID]
) -> None:
    body = {"stage": "distill", "dataset_id": labelled, "batch_size": 8}
    theirs = str(add_model(project=f"others-{uuid4().hex[:8]}"))
    asked = {**body, "model_id": str(classifier), "student_model_id": theirs}
    assert_problem(client.post("/jobs", json=asked), 404, "student_model_id: no model")


def test_a_model_that_a_student_will_start_from_is_kept(
    client: TestClient, labelled: str, classifier: UUID, add_model: Callable[..., UUID]
) -> None:
    student = add_model(seed=10)
    body = {"stage": "distill", "dataset_id": labelled, "model_id": str(classifier)}
    asked = {**body, "batch_size": 8, "student_model_id": str(student)}
    job_id = client.post("/jobs", json=asked).json()["id"]
    assert_problem(client.delete(f"/models/{student}"), 409, "1 unfinished job")
    client.post(f"/jobs/{job_id}/cancel").raise_for_status()
    assert client.delete(f"/models/{student}").status_code == 204
    said = f"the model {student}, which student_model_id names, was deleted"
    assert_problem(client.post(f"/jobs/{job_id}/retry"), 409, said)


def test_a_student_that_sees_other_images(
    client: TestClient,
    labelled: str,
    classifier: UUID,
    add_model: Callable[..., UUID],
    session: Callable[[], Session],
) -> None:
    with session() as opened, opened.begin():
        model = opened.get_one(Model, add_model(seed=9))
        larger = {**model.manifest["architecture"], "image_size": 24}
        changed = {**model.manifest, "architecture": larger}
        opened.execute(update(Model).where(Model.id == model.id).values(manifest=changed))
    body = {"stage": "distill", "dataset_id": labelled, "model_id": str(classifier)}
    asked = {**body, "batch_size": 8, "student_model_id": str(model.id)}
    words = f"student_model_id: found a model with image_size 24, the teacher has {SIDE}"
    assert_problem(client.post("/jobs", json=asked), 422, words)
