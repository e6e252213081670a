"""Every kind of encoder as ONNX: the same answers, for any number of images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from core.learning.architecture import Architecture
from core.learning.classifier import Classifier
from core.learning.onnx_export import NotExportable, export_onnx
from core.learning.preprocessing import Preprocessing
from core.learning.runtimes.eager import eager
from core.learning.runtimes.onnx import has_openvino, onnxruntime_run, openvino_run
from core.learning.runtimes.run import difference

GREY = Preprocessing(image_size=16, channels=1, mean=(0.3,), std=(0.2,))


def test_an_encoder_has_vectors_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = Architecture(
        encoder="resnet10_tiny", image_size=16, channels=1, class_count=None
    ).build()
    path = tmp_path / "model.onnx"
    export_onnx(encoder.eval(), GREY, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(path)
    assert [output.name for output in session.get_outputs()] == ["embedding"]
    facts = json.loads(session.get_modelmeta().custom_metadata_map["facts"])
    assert facts["mean"] == [0.3]
    assert facts["classes"] == []
    assert str(Path.cwd()) not in str(onnx.load(path).graph)


def test_all_runtimes_answer_alike_together_and_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    classifier = Architecture(
        encoder="resnet10_tiny", image_size=16, channels=1, class_count=4, hidden_dim=8
    ).build()
    assert isinstance(classifier, Classifier)
    torch.nn.init.normal_(classifier.head.weight)  # a new head is zero: it would say nothing
    path = tmp_path / "model.onnx"
    export_onnx(classifier.eval(), GREY, path, classes=["a", "b", "c", "d"])
    images = np.random.default_rng(2).integers(0, 256, (5, 16, 16, 1), dtype=np.uint8)
    expected = eager(classifier, GREY)(images)
    runs = [onnxruntime_run(path, threads=1)]
    if has_openvino():
        runs.append(openvino_run(path, threads=1))
    for run in runs:
        assert difference(expected, run(images)) < 1e-5
        vectors, probabilities = expected
        assert probabilities is not None
        assert np.ptp(probabilities) > 0.01
        for row in range(len(images)):
            alone = slice(row, row + 1)
            one = (vectors[alone], probabilities[alone])
            assert difference(one, run(images[alone])) < 1e-5


def test_a_module_that_cannot_be_exported_says_why(tmp_path: Path) -> None:
    class Counting(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images * float(images.sum().item() > 0) if images.sum().item() else images

    with pytest.raises(NotExportable, match="data-dependent"):
        export_onnx(Counting(), GREY, tmp_path / "model.onnx")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
