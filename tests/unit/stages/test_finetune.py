"""The finetuning stage: from a plan to a classifier with metrics that can be believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import torch

from core.learning.classifier import Classifier
from core.learning.finetuning import FinetuneConfig, network
from core.learning.finetuning.supervised import train_supervised
from core.stages.baseline import config_again
from core.stages.context import StageContext
from core.stages.finetune import run_finetune
from core.stages.labelled import labelled_images
from core.stages.outcome import publish
from core.stages.pretrain import run_pretrain
from tests.unit.stages.desk import Desk

TINY: dict[str, Any] = {"encoder": "resnet10_tiny", "image_size": 8}
SHORT: dict[str, Any] = {"epochs": 1, "batch_size": 16}


class Finetuning(Desk):
    """Runs finetuning jobs."""

    def take(self, *, split: float = 0.0, **spec: Any) -> StageContext:
        """A job on the digits with these shares in the validation and test splits."""
        self.split(validation=split, test=split)
        return super().take(**spec)

    def finetune(self, **options: Any) -> tuple[UUID, dict[str, Any]]:
        """The model's id and its manifest, read back from the database."""
        context = self.take(stage="finetune", **options)
        model_id = publish(context, run_finetune(context))
        return model_id, self.manifest(model_id)


@pytest.fixture(scope="module")
def desk(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finetuning]:
    with Finetuning.opened(postgres_url, tmp_path_factory.mktemp("desk")) as desk:
        yield desk


@pytest.fixture(scope="module")
def encoder_id(desk: Finetuning) -> UUID:
    context = desk.take(stage="pretrain", **TINY, epochs=2, batch_size=32, projection_dim=12)
    return publish(context, run_pretrain(context))


def test_held_out_labels_give_every_figure(desk: Finetuning, encoder_id: UUID) -> None:
    _, manifest = desk.finetune(model_id=str(encoder_id), method="linear", layer="encoder")
    metrics, classes = manifest["metrics"], manifest["classes"]
    assert (metrics["method"], metrics["layer"]) == ("linear", "encoder")
    assert metrics["validation"] is None
    assert metrics["test"] is None
    assert metrics["baseline"] is None
    found = metrics["cross_validation"]
    assert found["total"] == metrics["labels"]
    assert "cross-validation" in found["method"]
    low, high = found["interval_95"]
    assert low < found["accuracy"] < high
    support = {c: metrics["per_class"]["cross_validation"][c]["support"] for c in classes}
    assert sum(support.values()) == found["total"]
    counts = metrics["confusion"]["cross_validation"]
    assert sum(counts[c].get(c, 0) for c in classes if c in counts) == found["correct"]
    assert metrics["calibration"]["temperature"] > 0
    assert [c["method"] for c in metrics["candidates"]] == ["linear"]


def test_splits_take_the_place_of_held_out_labels(desk: Finetuning, encoder_id: UUID) -> None:
    _, manifest = desk.finetune(model_id=str(encoder_id), split=0.15, baseline=True, **SHORT)
    metrics = manifest["metrics"]
    assert metrics["cross_validation"] is None
    assert set(metrics["per_class"]) == {"validation", "test"}
    assert {c["total"] for c in metrics["candidates"]} == {metrics["validation"]["total"]}
    assert len(metrics["candidates"]) > 1
    assert "cross-fitted" in metrics["validation"]["method"]
    counts = metrics["confusion"]["validation"]
    assert sum(row.get(name, 0) for name, row in counts.items()) == metrics["validation"]["correct"]
    error = metrics["calibration"]["error_after"]
    assert metrics["validation"]["calibration_error"] == error
    assert metrics["baseline"]["method"] == "test split, from random weights"
    assert metrics["baseline"]["total"] == metrics["test"]["total"]
    assert metrics["baseline"]["finetuned"] == metrics["test"]


def test_a_layer_of_the_projection_head_is_served_with_the_classifier(
    desk: Finetuning, encoder_id: UUID
) -> None:
    model_id, manifest = desk.finetune(
        model_id=str(encoder_id), method="prototype", layer="projection"
    )
    assert manifest["architecture"]["hidden_dim"] == 128
    loaded = desk.take(stage="finetune", model_id=str(encoder_id)).load_model(model_id)
    assert isinstance(loaded.module, Classifier)
    assert loaded.module.hidden is not None
    assert loaded.module.forward_features(torch.zeros(1, 1, 8, 8)).shape == (1, 128)


def test_the_baseline_answers_the_same_labels(desk: Finetuning, encoder_id: UUID) -> None:
    _, manifest = desk.finetune(
        model_id=str(encoder_id), method="linear", layer="encoder", baseline=True, **SHORT
    )
    baseline = manifest["metrics"]["baseline"]
    assert baseline["method"] == "2 held-out fifths of the labels, from random weights"
    assert baseline["finetuned"]["method"] == "2 held-out fifths of the labels"
    assert baseline["total"] == baseline["finetuned"]["total"] > 0
    assert baseline["total"] < manifest["metrics"]["labels"]


def test_a_budget_is_shared_by_all_networks_of_the_job(
    desk: Finetuning, encoder_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float | None] = []
    real = train_supervised

    def told(*args: Any, config: FinetuneConfig, **named: Any) -> None:
        shares.append(config.budget_minutes)
        real(*args, config=replace(config, budget_minutes=None, epochs=1), **named)

    monkeypatch.setattr(network, "train_supervised", told)
    options = {"model_id": str(encoder_id), "method": "full", "layer": "encoder"}
    desk.finetune(**options, baseline=True, budget_minutes=6, batch_size=32)
    # A trial, the classifier, and two rounds of scratch and finetuned.
    assert shares == pytest.approx([1.0] * 6)
    shares.clear()
    desk.finetune(**options, baseline=True, budget_minutes=6, batch_size=32, split=0.15)
    assert shares == pytest.approx([3.0] * 2)


def test_statistics_of_the_channels_are_not_those_of_test_images(desk: Finetuning) -> None:
    context = desk.take(stage="finetune", method="full", **TINY, **SHORT, split=0.3)
    found = run_finetune(context).preprocessing
    labelled = labelled_images(context, found, sorted(context.job.class_names))
    seen = [labelled.split(name)[0] for name in ("train", "validation")]
    assert found.mean == pytest.approx([np.concatenate(seen).mean() / 255])
    assert found.mean != pytest.approx([labelled.images_NHWC.mean() / 255])


def test_from_scratch(desk: Finetuning) -> None:
    _, manifest = desk.finetune(method="full", **TINY, **SHORT, calibrate=False)
    metrics = manifest["metrics"]
    assert manifest["parent"] is None
    assert metrics["method"] == "full"
    assert metrics["cross_validation"] is None
    assert metrics["calibration"] is None
    assert any("accuracy was not measured" in text for text in metrics["warnings"])


def test_a_part_of_the_labels_compares_heads_anew() -> None:
    auto = FinetuneConfig(method="auto", candidates=("linear", "prototype", "full"), layer="auto")
    again = config_again(auto, method="prototype", layer="projection")
    assert (again.method, again.layer) == ("auto", "auto")
    assert again.candidates == ("linear", "prototype")
    network = config_again(auto, method="full", layer="projection")
    assert (network.method, network.layer) == ("full", "projection")
    asked = config_again(replace(auto, method="linear"), method="linear", layer="encoder")
    assert (asked.method, asked.layer) == ("linear", "auto"), "the layer is chosen anew, too"


def test_a_classifier_is_finetuned_again_from_its_encoder(
    desk: Finetuning, encoder_id: UUID
) -> None:
    classifier_id, _ = desk.finetune(
        model_id=str(encoder_id), method="linear", layer="projection", calibrate=False
    )
    again_id, manifest = desk.finetune(
        model_id=str(classifier_id), method="linear", calibrate=False
    )
    assert manifest["architecture"]["hidden_dim"] is None, "only its encoder is taken"
    assert not manifest["metrics"]["knows_labels"], "a head leaves the encoder as it is"
    assert not any("flatters" in warning for warning in manifest["metrics"]["warnings"])
    assert manifest["parent"]["model_id"] == str(classifier_id)
    context = desk.take(stage="finetune", model_id=str(encoder_id))
    first, again = context.load_model(encoder_id).encoder, context.load_model(again_id).encoder
    for before, after in zip(first.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(before, after)


def test_held_out_labels_that_the_encoder_knows_come_with_a_warning(
    desk: Finetuning, encoder_id: UUID
) -> None:
    full_id, manifest = desk.finetune(model_id=str(encoder_id), method="full", **SHORT)
    assert manifest["metrics"]["knows_labels"]
    _, manifest = desk.finetune(model_id=str(full_id), method="linear")
    metrics = manifest["metrics"]
    assert metrics["knows_labels"]
    assert any("flatters" in warning for warning in metrics["warnings"])
    assert metrics["cross_validation"]["method"].endswith("by an encoder that knows labels")
    _, manifest = desk.finetune(model_id=str(full_id), method="linear", split=0.15)
    assert not any("flatters" in warning for warning in manifest["metrics"]["warnings"])
