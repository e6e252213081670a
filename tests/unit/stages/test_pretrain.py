"""The pre-training stage: from a plan to a model that the next stage can start from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
import torch
from sqlalchemy import select

from core.config import Settings
from core.db.models import Job
from core.errors import ModelNotFound
from core.learning.encoders import IMAGENET_STATISTICS, Encoder
from core.learning.onnx_export import NotExportable
from core.stages.context import StageContext
from core.stages.outcome import publish
from core.stages.pretrain import run_pretrain
from tests.integration.job_engine import IMAGES
from tests.unit.stages.desk import Desk

TINY: dict[str, Any] = {
    "encoder": "resnet10_tiny",
    "image_size": 8,
    "batch_size": 32,
    "epochs": 2,
    "projection_dim": 12,
}
PLANNED_AT_FIRST = (
    "stage",
    "device",
    "images",
    "encoder",
    "image_size",
    "channels",
    "views",
    "batch_size",
    "epochs",
    "steps",
    "temperature",
    "optimizer",
    "learning_rate",
    "weight_decay",
    "warmup_epochs",
    "augmentation",
    "seed",
)


class Pretraining(Desk):
    """Takes small pre-training jobs."""

    def take(self, **spec: Any) -> StageContext:
        return super().take(**{"stage": "pretrain", **TINY, **spec})


@pytest.fixture(scope="module")
def desk(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pretraining]:
    with Pretraining.opened(postgres_url, tmp_path_factory.mktemp("desk")) as desk:
        yield desk


@pytest.fixture(scope="module")
def first(desk: Pretraining) -> UUID:
    """A model from random weights."""
    context = desk.take(augmentation_strength=0.5)
    context.settings = desk.settings.model_copy(update={"export_onnx": True})
    return publish(context, run_pretrain(context))


def test_a_model_is_stored_with_its_projection_head(desk: Pretraining, first: UUID) -> None:
    manifest = desk.manifest(first)
    assert manifest["kind"] == "encoder"
    assert manifest["architecture"]["stem"] == "small"
    assert manifest["parent"] is None
    assert set(manifest["files"]) == {
        "weights.safetensors",
        "projection.safetensors",
        "model.onnx",
    }
    assert manifest["projection"] == {
        "feature_dim": 128,
        "hidden_dim": 128,
        "projection_dim": 12,
        "layers": 2,
    }
    report = manifest["metrics"]["pretraining"]
    assert report["steps"] == 2 * (manifest["metrics"]["images"] // 32)
    assert report["seconds"] > 0
    assert not report["stopped_early"]
    assert 0 <= report["final"]["knn_accuracy"] <= 1
    assert 0 < report["knn_chance"] < 0.5


def test_the_runtime_is_chosen_among_those_with_the_same_answers(
    desk: Pretraining, first: UUID
) -> None:
    manifest = desk.manifest(first)
    assert manifest["onnx"] == {"exported": True, "reason": None}
    runtime = manifest["runtime"]
    assert runtime["batch"] == desk.settings.inference_batch
    assert runtime["images"] == 16
    assert runtime["candidates"]["eager"]["difference"] < 1e-6
    ours = runtime["candidates"]["onnxruntime"]
    assert ours["refused"] is None
    assert 0 <= ours["difference"] <= runtime["tolerance"] == 1e-3
    assert ours["one_ms"] > 0
    assert ours["batch_ms"] > 0
    assert runtime["candidates"][runtime["chosen"]]["refused"] is None


def test_what_cannot_be_exported_is_a_model_all_the_same(
    desk: Pretraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise NotExportable("no operator for this")

    monkeypatch.setattr("core.stages.serving.export_onnx", refuse)
    context = desk.take()
    context.settings = desk.settings.model_copy(update={"export_onnx": True})
    manifest = desk.manifest(publish(context, run_pretrain(context)))
    assert manifest["onnx"] == {"exported": False, "reason": "no operator for this"}
    assert "model.onnx" not in manifest["files"]


def test_the_next_stage_gets_both(desk: Pretraining, first: UUID) -> None:
    loaded = desk.take().load_model(first)
    assert isinstance(loaded.module, Encoder)
    assert loaded.projection is not None
    assert not loaded.projection.training
    with torch.no_grad():
        features_BD = loaded.module(torch.zeros(3, 1, 8, 8))
        assert loaded.projection(features_BD).shape == (3, 12)


def test_a_model_that_is_not_there(desk: Pretraining) -> None:
    with pytest.raises(ModelNotFound, match="model_id"):
        desk.take().load_model(uuid4())


def test_a_run_goes_on_from_a_model(desk: Pretraining, first: UUID) -> None:
    without = dict.fromkeys(("encoder", "image_size"))
    context = desk.take(
        **without, model_id=str(first), optimizer="sgd", learning_rate=1e-9, weight_decay=0
    )
    outcome = run_pretrain(context)
    parent = context.parent()
    assert parent is not None
    assert outcome.parent is not None
    assert outcome.parent.model_id == first
    assert outcome.preprocessing == parent.preprocessing
    assert isinstance(outcome.module, Encoder)
    for before, after in zip(parent.module.parameters(), outcome.module.parameters(), strict=True):
        torch.testing.assert_close(before, after)
    assert desk.manifest(publish(context, outcome))["parent"]["model_id"] == str(first)


@pytest.mark.parametrize(("use_labels", "looked_at"), [(False, "train"), (True, "validation")])
def test_labels_that_attract_are_not_looked_at(
    desk: Pretraining, use_labels: bool, looked_at: str
) -> None:
    context = desk.take(use_labels=use_labels, epochs=1)
    items = context.items()
    labels = [item.label for item in items if item.label and item.split == looked_at]
    assert len(labels) > len(set(labels)), "the data set has such labels"
    outcome = run_pretrain(context)
    report = outcome.metrics["pretraining"]
    assert report["knn_images"] == sum(labels.count(label) > 1 for label in labels)
    assert outcome.metrics["images"] == sum(item.split != "test" for item in items) < IMAGES
    assert outcome.config["use_labels"] == use_labels
    assert outcome.metrics["processes"] == 1


def test_a_plan_of_an_older_version_still_runs(desk: Pretraining) -> None:
    context = desk.take(epochs=1)
    plan = {name: context.job.plan[name] for name in PLANNED_AT_FIRST}
    context.job = dataclasses.replace(context.job, plan=plan)
    outcome = run_pretrain(context)
    assert outcome.config["loss"] == "nt_xent"
    assert outcome.architecture.stem == "small"


def test_imagenet_weights_come_with_their_statistics(desk: Pretraining) -> None:
    context = desk.take(epochs=1)
    items = context.items()
    measured, images = context.new_preprocessing(items)
    seen = images[[item.split != "test" for item in items]]
    assert len(seen) < len(images)
    assert measured.mean[0] == pytest.approx(seen.mean() / 255, abs=1e-6)
    plan = {**context.job.plan, "init": "imagenet"}
    context.job = dataclasses.replace(context.job, plan=plan)
    grey, _ = context.new_preprocessing(items)
    assert grey.mean == pytest.approx([np.mean(IMAGENET_STATISTICS[0])])
    context.job = dataclasses.replace(context.job, plan={**plan, "channels": 3})
    colour, _ = context.new_preprocessing(items)
    assert (colour.mean, colour.std) == IMAGENET_STATISTICS


@pytest.mark.parametrize(
    ("wanted", "batch", "found"),
    [("auto", 32, 1), (1, 32, 1), (2, 32, 2), (3, 32, 2), (8, 21, 7), (4, 4, 2), (2, 2, 1)],
)
def test_processes_share_a_batch_evenly(
    desk: Pretraining, wanted: int | str, batch: int, found: int
) -> None:
    context = desk.take(epochs=1)
    context.settings = Settings(training_processes=wanted, _env_file=None)
    assert context.processes(batch) == found


def test_two_processes_train_a_model(desk: Pretraining) -> None:
    context = desk.take(epochs=1)
    context.settings = context.settings.model_copy(update={"training_processes": 2})
    outcome = run_pretrain(context)
    with desk.sessions.begin() as session:
        job = session.scalars(select(Job).where(Job.id == context.job.id)).one()
        progress = job.progress or {}
    steps = outcome.metrics["pretraining"]["steps"]
    assert (progress["step"], progress["steps"]) == (steps, steps)
    assert context.load_model(publish(context, outcome)).projection is not None
