"""Eight bits: offered for a network whose classes hold, refused with the figure for another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

from core.learning.architecture import Architecture
from core.learning.classifier import Classifier
from core.learning.onnx_export import export_onnx
from core.learning.preprocessing import Preprocessing
from core.learning.runtimes import Pixels, int8
from core.learning.runtimes.fidelity import Compared, Fidelity
from core.learning.runtimes.int8 import RUNTIME, Material, tried
from core.learning.runtimes.onnx import onnxruntime_run
from tests.unit.learning.digits import canvases, preprocessing_of

LEARNT = 1200
NAMES = [f"digit {number}" for number in range(10)]


class Digits:
    """A network that has learnt to read digits, and its file."""

    def __init__(self, folder: Path, *, outlier: float = 1.0) -> None:
        self.folder = folder
        self.images, self.targets = canvases()
        self.preprocessing = preprocessing_of(self.images)
        self.classifier = trained(self.images, self.targets, self.preprocessing)
        block: Any = self.classifier.encoder.get_submodule("body.3")
        with torch.no_grad():  # the network says the same: what one layer adds, the next takes
            block.bn1.weight[0] *= outlier
            block.bn1.bias[0] *= outlier
            block.conv2.weight[:, 0] /= outlier
        self.exported = folder / "model.onnx"
        export_onnx(self.classifier, self.preprocessing, self.exported, classes=NAMES)

    def tried(self, compared: slice, *, labels: bool) -> Mapping[str, Any]:
        targets = self.targets[compared] if labels else np.full_like(self.targets[compared], -1)
        return tried(
            onnxruntime_run(self.exported, threads=1),
            self.exported,
            self.folder / "model-int8.onnx",
            self.preprocessing,
            Material(
                calibration_NHWC=self.images[:128],
                compared=lambda: Compared(self.images[compared], targets),
                batch=8,
                threads=1,
            ),
        )


def trained(images: Pixels, targets: np.ndarray[Any, Any], seen: Preprocessing) -> Classifier:
    torch.manual_seed(0)
    built = Architecture(
        encoder="resnet10_tiny", image_size=8, channels=1, class_count=len(NAMES)
    ).build()
    assert isinstance(built, Classifier)
    optimizer = torch.optim.AdamW(built.parameters(), lr=3e-3)
    inputs, wanted = torch.from_numpy(images[:LEARNT]), torch.from_numpy(targets[:LEARNT])
    built.train()
    for rows in torch.split(torch.randperm(4 * LEARNT).remainder(LEARNT), 64):
        optimizer.zero_grad()
        loss = functional.cross_entropy(built(seen.normalise(inputs[rows])), wanted[rows])
        torch.autograd.backward(loss)
        optimizer.step()
    return built.eval()


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return Digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small a network may or may not be faster on a busy machine: here it need not be."""
    monkeypatch.setattr(int8, "LEAST_SAVED", -1000.0)


@pytest.mark.usefixtures("any_time")
@pytest.mark.parametrize("labels", [True, False])
def test_a_network_whose_classes_hold_is_offered(digits: Digits, labels: bool) -> None:
    found = digits.tried(slice(LEARNT, None), labels=labels)
    candidate = found["candidate"]
    assert found["predict"] == RUNTIME, candidate["refused"]
    fidelity = candidate["fidelity"]
    assert fidelity["images"] == len(digits.images) - LEARNT
    assert fidelity["agreement"] >= (0.98 if labels else 0.995)
    assert fidelity["confidence_shift"] <= 0.02
    if labels:
        assert fidelity["accuracy_float"] > 0.9
        assert fidelity["accuracy"] >= fidelity["accuracy_float"] - 0.005
        assert fidelity["calibration_error"] <= fidelity["calibration_error_float"] + 0.02
    else:
        assert fidelity["accuracy"] is None
    assert 0 < candidate["difference"] < 0.5
    assert candidate["one_ms"] > 0
    # Of eight-bit products there are as many as of convolutions, and the head is none of them.
    graph = onnx.load(digits.folder / "model-int8.onnx")
    facts = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(facts["facts"])["classes"] == NAMES
    types = {value.name: value.data_type for value in graph.graph.initializer}
    [head] = [node for node in graph.graph.node if node.op_type == "Gemm"]
    assert types[head.input[1]] == onnx.TensorProto.FLOAT
    assert list(types.values()).count(onnx.TensorProto.INT8) > 5


@pytest.mark.usefixtures("any_time")
def test_a_network_whose_classes_do_not_hold_is_refused_with_the_figure(tmp_path: Path) -> None:
    spoilt = Digits(tmp_path, outlier=3e4)  # all but one channel are zero in 256 steps of its range
    found = spoilt.tried(slice(LEARNT, None), labels=True)
    assert "predict" not in found
    fidelity = found["candidate"]["fidelity"]
    assert fidelity["accuracy_float"] > 0.9
    assert fidelity["agreement"] < 0.98
    assert f"{fidelity['agreement']:.2%} of" in found["candidate"]["refused"]


def test_what_saves_too_little_is_refused(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "LEAST_SAVED", 1.0)
    found = digits.tried(slice(LEARNT, None), labels=True)
    assert "predict" not in found
    assert "of the time in float32" in found["candidate"]["refused"]


@pytest.mark.usefixtures("any_time")
def test_few_images_say_nothing(digits: Digits) -> None:
    found = digits.tried(slice(LEARNT, LEARNT + 99), labels=True)
    assert "predict" not in found
    assert "there are 99 images, 99 of them labelled" in found["candidate"]["refused"]


def test_a_file_that_is_none_is_refused(digits: Digits, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    material = Material(
        calibration_NHWC=digits.images[:4],
        compared=lambda: Compared(digits.images, digits.targets),
        batch=2,
        threads=1,
    )
    exact = onnxruntime_run(digits.exported, threads=1)
    found = tried(exact, tmp_path / "model.onnx", tmp_path / "q", digits.preprocessing, material)
    assert "predict" not in found
    assert found["candidate"]["refused"]


HELD = {"images": 400, "labels": 200, "agreement": 0.99, "confidence_shift": 0.01}
LABELLED = {
    "accuracy": 0.9,
    "accuracy_float": 0.9,
    "calibration_error": 0.03,
    "calibration_error_float": 0.03,
}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        ({"accuracy": 0.95}, None),
        ({"accuracy": 0.894}, "0.8940, in float32 0.9000"),
        ({"agreement": 0.979}, "97.90% of 400 images"),
        ({"confidence_shift": 0.021}, "0.021"),
        ({"calibration_error": 0.051}, "0.051, in float32 0.030"),
        ({"agreement": float("nan")}, "nan"),
        ({"labels": 99}, "99.5%"),
        ({"labels": 99, "agreement": 0.996, "accuracy": 0.5}, None),
    ],
)
def test_what_must_hold(changed: dict[str, Any], reason: str | None) -> None:
    refused = Fidelity(**{**HELD, **LABELLED, **changed}).refused()
    if reason is None:
        assert refused is None
    else:
        assert reason in (refused or "")


def test_figures_are_those_of_the_definition() -> None:
    exact = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]], dtype=np.float32)
    rounded = np.array([[0.8, 0.2], [0.6, 0.4], [0.7, 0.3]], dtype=np.float32)
    found = Fidelity.of(exact, rounded, np.array([0, 1, -1]))
    assert (found.images, found.labels) == (3, 2)
    assert found.agreement == pytest.approx(2 / 3)
    assert found.confidence_shift == pytest.approx((0.1 + 0.2 + 0.0) / 3)
    assert (found.accuracy, found.accuracy_float) == (0.5, 1.0)
    # One bin for each of the two: |1 - 0.8| and |0 - 0.6|, and |1 - 0.9| and |1 - 0.6|.
    assert found.calibration_error == pytest.approx((0.2 + 0.6) / 2)
    assert found.calibration_error_float == pytest.approx((0.1 + 0.4) / 2)
