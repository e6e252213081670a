"""What a job leaves for serving: a trained classifier in eight bits, where its classes hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import select

from core.db.models import Model
from core.inference.model import LoadedModel
from core.inference.runtimes import Placement
from core.learning.runtimes import int8
from core.learning.runtimes.int8 import RUNTIME
from core.learning.runtimes.onnx import onnxruntime_run
from core.registry.artifact import INT8, ONNX
from core.registry.service import source_of
from core.stages.context import StageContext
from core.stages.finetune import run_finetune
from core.stages.outcome import Outcome, publish
from core.stages.pretrain import run_pretrain
from tests.unit.stages.desk import Desk

TINY: dict[str, Any] = {"encoder": "resnet10_tiny", "image_size": 8, "batch_size": 32}
TRAINED: dict[str, Any] = {**TINY, "stage": "finetune", "method": "full", "epochs": 6}


class Publishing(Desk):
    """Runs jobs on digits, most of them labelled, and ends them as models."""

    def taken(self, *, validation: float = 0.15, **options: Any) -> StageContext:
        self.split(validation=validation, test=0.15)
        return self.take(**options)

    def published(self, context: StageContext, outcome: Outcome) -> Model:
        model_id: UUID = publish(context, outcome)
        with self.sessions.begin() as session:
            model = session.scalars(select(Model).where(Model.id == model_id)).one()
            session.expunge(model)
        return model


@pytest.fixture(scope="module")
def desk(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publishing]:
    folder: Path = tmp_path_factory.mktemp("desk")
    with Publishing.opened(
        postgres_url, folder, export_onnx=True, images=1200, labelled=900
    ) as desk:
        yield desk


@pytest.fixture
def any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small a network may or may not be faster on a busy machine: here it need not be."""
    monkeypatch.setattr(int8, "LEAST_SAVED", -1000.0)


@pytest.mark.usefixtures("any_time")
def test_a_trained_classifier_is_published_in_eight_bits_and_served_so(
    desk: Publishing, tmp_path: Path
) -> None:
    context = desk.taken(**TRAINED)
    model = desk.published(context, run_finetune(context))
    runtime = model.manifest["runtime"]
    candidate = runtime["candidates"][RUNTIME]
    assert runtime["predict"] == RUNTIME, candidate["refused"]
    assert runtime["chosen"] != RUNTIME
    fidelity, measured = candidate["fidelity"], model.manifest["metrics"]["validation"]
    assert fidelity["labels"] == measured["total"] >= 100
    assert fidelity["images"] > fidelity["labels"]
    assert fidelity["accuracy_float"] == pytest.approx(measured["accuracy"], abs=1e-5)
    assert fidelity["accuracy"] >= measured["accuracy"] - 0.005
    files = model.manifest["files"]
    assert files[INT8]["bytes"] < 0.6 * files[ONNX]["bytes"]

    source = source_of(model, desk.store, tmp_path)
    served = LoadedModel(source, Placement(labels_only=True))
    assert served.runtime == RUNTIME
    canvases = list(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8))
    _, alone = onnxruntime_run(source.fetch(INT8), threads=1)(np.stack(canvases))
    assert alone is not None
    for answer, expected in zip(served.forward(canvases), alone, strict=True):
        assert answer.probabilities_K is not None
        np.testing.assert_array_equal(answer.probabilities_K, expected)


@pytest.mark.usefixtures("any_time")
def test_images_without_labels_are_compared_where_labels_are_few(desk: Publishing) -> None:
    context = desk.taken(**{**TRAINED, "epochs": 1}, validation=0.01)
    model = desk.published(context, run_finetune(context))
    candidate = model.manifest["runtime"]["candidates"][RUNTIME]
    # Some labels, too few for an accuracy; the images without labels are there.
    assert candidate["fidelity"]["labels"] < 100
    assert candidate["fidelity"]["images"] >= 200


def test_a_setting_leaves_it_out_and_an_encoder_has_none(desk: Publishing) -> None:
    context = desk.taken(**TINY, stage="pretrain", epochs=1)
    encoder = desk.published(context, run_pretrain(context))
    assert RUNTIME not in encoder.manifest["runtime"]["candidates"]
    desk.settings.export_int8 = False
    context = desk.taken(**{**TRAINED, "epochs": 1})
    model = desk.published(context, run_finetune(context))
    assert RUNTIME not in model.manifest["runtime"]["candidates"]
    assert "predict" not in model.manifest["runtime"]
    assert INT8 not in model.manifest["files"]
    desk.settings.export_int8 = True
