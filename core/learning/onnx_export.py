"""A trained module as an ONNX file that needs nothing of this project to answer."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 — the field's usual name

from core.learning.classifier import Classifier
from core.learning.encoders import Encoder
from core.learning.preprocessing import Preprocessing

INPUT = "images"
EMBEDDING = "embedding"
PROBABILITIES = "probabilities"
OPSET = 20
TRACED_IMAGES = 2  # one would be taken for a constant


class NotExportable(Exception):
    """The module could not be written as ONNX; the message says why."""


class Answering(nn.Module):
    """From canvases to what the service answers.

    Input: uint8 (B, S, S, C). Output: unit vectors float32 (B, D) and, of a classifier,
    probabilities float32 (B, K).
    """

    def __init__(self, module: Encoder | Classifier, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.module = module
        self.preprocessing = preprocessing

    def forward(self, images_BHWC: Tensor) -> tuple[Tensor, ...]:
        """Vectors, and probabilities where there are classes."""
        return self.answer(self.preprocessing.normalise(images_BHWC))

    def answer(self, inputs_BCHW: Tensor) -> tuple[Tensor, ...]:
        """The same for canvases that are normalised, float32 (B, C, S, S)."""
        if not isinstance(self.module, Classifier):
            return (F.normalize(self.module(inputs_BCHW).float(), dim=-1),)
        features_BD = self.module.forward_features(inputs_BCHW)
        probabilities_BK = self.module.head(features_BD).softmax(dim=-1)
        return F.normalize(features_BD.float(), dim=-1), probabilities_BK


def export_onnx(
    module: Encoder | Classifier,
    preprocessing: Preprocessing,
    path: Path,
    *,
    classes: Sequence[str] = (),
) -> None:
    """Write one file with weights, preprocessing of values and names of classes.

    The graph takes canvases, uint8 (B, S, S, C), any B, and has the outputs `embedding` and, of a
    classifier, `probabilities`. How a canvas is made of an image stands in the file's metadata.

    Args:
        module: On the CPU; left in evaluation mode.
        preprocessing: The module's.
        path: Where the file is written.
        classes: Names of the classes, in the order of the probabilities.

    Raises:
        NotExportable: The exporter does not know the module, or made a file that is not valid.
    """
    side, channels = preprocessing.image_size, preprocessing.channels
    example = torch.zeros((TRACED_IMAGES, side, side, channels), dtype=torch.uint8)
    outputs = [EMBEDDING, PROBABILITIES] if isinstance(module, Classifier) else [EMBEDDING]
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder, _quiet():
            traced = Path(folder) / "traced.onnx"
            torch.onnx.export(
                Answering(module, preprocessing).eval(),
                (example,),
                traced,
                input_names=[INPUT],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            graph = onnx.load(traced)
        _describe(graph, preprocessing, classes)
        onnx.checker.check_model(graph, full_check=True)
        onnx.save(graph, path)
    except Exception as error:  # the exporter's errors are of many kinds
        raise NotExportable(_first_cause(error)) from error


def _first_cause(error: BaseException) -> str:
    """What was wrong; the exporter wraps it in advice on how to report it."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = str(error).strip().splitlines() or ["nothing was said"]
    return f"{type(error).__name__}: {said[0][:300]}"


def described(preprocessing: Preprocessing, classes: Sequence[str]) -> Mapping[str, str]:
    """What the file's metadata says: how a canvas is made, and what the outputs are."""
    facts: dict[str, Any] = {
        "image_size": preprocessing.image_size,
        "channels": preprocessing.channels,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "classes": list(classes),
    }
    return {
        "facts": json.dumps(facts, ensure_ascii=False),
        "canvas": "turn by the EXIF orientation; RGB; the centre square; resize it to image_size, "
        "bilinear with antialiasing; BT.601 luma if channels is 1; uint8. The graph divides by "
        "255, subtracts mean and divides by std",
    }


def _describe(graph: onnx.ModelProto, preprocessing: Preprocessing, classes: Sequence[str]) -> None:
    del graph.metadata_props[:]
    for name, value in described(preprocessing, classes).items():
        graph.metadata_props.add(key=name, value=value)
    # Where each node stood in the source: twice the graph's size, and this machine's paths.
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its own affairs: deprecations in itself, optimisations it skipped."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)
