"""By which runtime a model is served here: what its manifest chose, if that works here too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from core.errors import FewlabelsError
from core.learning.architecture import Architecture
from core.learning.checkpoint import load_weights
from core.learning.preprocessing import Preprocessing
from core.learning.runtimes import Probe, Run
from core.learning.runtimes.choice import TOLERANCE
from core.learning.runtimes.cuda import cuda_graphs
from core.learning.runtimes.eager import eager
from core.learning.runtimes.int8 import RUNTIME as EIGHT_BITS
from core.learning.runtimes.int8 import TOLERANCE as INT8_TOLERANCE
from core.learning.runtimes.onnx import has_openvino, onnxruntime_run, openvino_run
from core.registry.artifact import INT8, ONNX, WEIGHTS, ModelSource
from core.telemetry import logger

log = logger(__name__)
EAGER = "eager"


class AnswersDiffer(Exception):
    """A runtime does not give the answers that the model had when it was made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where and how models are run in this process.

    Attributes:
        device: As torch names it.
        runtime: A runtime's name, or `auto`.
        threads: Of a pass on the CPU.
        batch: Most images in a pass.
        labels_only: The vectors are for nobody: they may come from eight bits.
    """

    device: str = "cpu"
    runtime: str = "auto"
    threads: int = 1
    batch: int = 32
    labels_only: bool = False

    def runtime_of(self, source: ModelSource) -> str:
        """By which runtime the model is to be run here."""
        if self.device != "cpu":
            return self.device
        if ONNX not in source.manifest["files"]:
            return EAGER
        measured: dict[str, Any] = source.manifest.get("runtime") or {}
        if self.labels_only and self.runtime == "auto" and measured.get("predict") == EIGHT_BITS:
            return EIGHT_BITS
        wanted: str = measured.get("chosen", EAGER) if self.runtime == "auto" else self.runtime
        if wanted == "openvino" and not has_openvino():
            return "onnxruntime"
        return wanted

    def apart(self, source: ModelSource) -> bool:
        """Whether classes are answered by another runtime than vectors."""
        exact = replace(self, labels_only=False)
        return replace(self, labels_only=True).runtime_of(source) != exact.runtime_of(source)

    def file_of(self, source: ModelSource) -> str:
        """The file of the artefact that the runtime reads."""
        files = {"onnxruntime": ONNX, "openvino": ONNX, EIGHT_BITS: INT8}
        return files.get(self.runtime_of(source), WEIGHTS)


def open_run(
    source: ModelSource, preprocessing: Preprocessing, placement: Placement
) -> tuple[str, Run]:
    """The runtime's name, and the call that answers.

    A runtime that cannot be started here, or answers otherwise than the model did when it was
    made, is replaced by PyTorch, with a warning; eight bits by what vectors come from.

    Raises:
        ArtifactCorrupt: A file does not have the checksum of the manifest.
    """
    name = placement.runtime_of(source)
    if name == EAGER:
        return name, _eager(source, preprocessing, placement)
    if placement.device != "cpu":
        return name, _cuda(source, preprocessing, placement)
    path = source.fetch(placement.file_of(source))
    start = openvino_run if name == "openvino" else onnxruntime_run
    try:
        run = start(path, threads=placement.threads)
        _compare(name, run, source, preprocessing)
    except FewlabelsError:
        raise
    except Exception as error:  # noqa: BLE001 — of whatever kind, there is another way to answer
        log.warning(
            "the runtime of a model does not work here, another takes its place",
            model_id=str(source.model_id),
            runtime=name,
            error=repr(error),
        )
        if name == EIGHT_BITS:
            return open_run(source, preprocessing, replace(placement, labels_only=False))
        return EAGER, _eager(source, preprocessing, placement)
    return name, run


def _compare(name: str, run: Run, source: ModelSource, preprocessing: Preprocessing) -> None:
    eight_bits = name == EIGHT_BITS
    measured = source.manifest.get("runtime") or {}
    expected = measured.get("probe_int8" if eight_bits else "probe")
    if expected is None:
        return
    tolerance = INT8_TOLERANCE if eight_bits else TOLERANCE
    distance = Probe.from_dict(expected).distance(Probe.of(run, preprocessing))
    if not distance <= tolerance:
        raise AnswersDiffer(f"by {distance:.2g}, more than {tolerance:g}")


def _eager(source: ModelSource, preprocessing: Preprocessing, placement: Placement) -> Run:
    with torch.device("meta"):
        module = Architecture.from_dict(source.manifest["architecture"]).build()
    # The cached file is replaced, never written into: processes share its pages.
    load_weights(module, source.fetch(WEIGHTS), mapped=True)
    return eager(module, preprocessing, threads=placement.threads)


def _cuda(source: ModelSource, preprocessing: Preprocessing, placement: Placement) -> Run:
    module = Architecture.from_dict(source.manifest["architecture"]).build()
    load_weights(module, source.fetch(WEIGHTS))
    return cuda_graphs(module, preprocessing, device=placement.device, most=placement.batch)
