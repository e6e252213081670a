"""The exported classifier in eight bits: made from real images, offered where its classes hold."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from core.learning.onnx_export import INPUT, PROBABILITIES
from core.learning.preprocessing import Preprocessing
from core.learning.runtimes.choice import TOLERANCE as ROUNDING
from core.learning.runtimes.choice import Candidate, in_turns, one_and_full
from core.learning.runtimes.fidelity import LEAST_IMAGES, LEAST_LABELS, Compared, Fidelity
from core.learning.runtimes.onnx import onnxruntime_run
from core.learning.runtimes.probe import Probe
from core.learning.runtimes.run import Floats, Pixels, Run, difference

RUNTIME = "onnxruntime-int8"
# What it must save of the fastest float runtime: it is one more session in memory.
LEAST_SAVED = 0.2
# Of the answers on another machine to those when it was made: an activation at the edge between
# two of 256 steps falls to either side with the order of a sum.
TOLERANCE = 0.02
CALIBRATED_AT_ONCE = 4


class DoesNotHold(Exception):
    """Eight bits are not offered; the message says why. `figures` are what was found until then."""

    def __init__(self, reason: str, figures: Candidate, fidelity: Fidelity | None = None) -> None:
        super().__init__(reason)
        self.figures = figures
        self.fidelity = fidelity


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """Real images of the model's own: to find the ranges of activations by, and to compare by."""

    calibration_NHWC: Pixels
    compared: Callable[[], Compared]
    batch: int
    threads: int


def tried(
    exact: Run, exported: Path, path: Path, preprocessing: Preprocessing, material: Material
) -> dict[str, Any]:
    """Quantise, time and compare; what is to be added to a manifest's `runtime`.

    `predict` is there only if the file at `path` is to be served.

    Args:
        exact: The fastest float runtime.
        exported: What `export_onnx` made of the classifier.
        path: Where the quantised file is written.
        preprocessing: The module's.
        material: Images.
    """
    try:
        quantise(exported, path, material.calibration_NHWC)
        rounded = onnxruntime_run(path, threads=material.threads)
        rounded(material.calibration_NHWC[:1])
    except Exception as error:  # noqa: BLE001 — recorded: what cannot be quantised is not chosen
        reason = f"{type(error).__name__}: {error}"[:300]
        return {"candidate": asdict(Candidate(refused=reason))}
    try:
        figures = _timed(exact, rounded, material)
        fidelity = _compared(exact, rounded, material.compared(), figures)
    except DoesNotHold as refusal:
        found = {**asdict(refusal.figures), "refused": str(refusal)}
        fidelity_found = refusal.fidelity and refusal.fidelity.to_dict()
        return {"candidate": {**found, "fidelity": fidelity_found}}
    return {
        "candidate": {**asdict(figures), "fidelity": fidelity.to_dict()},
        "predict": RUNTIME,
        "probe_int8": asdict(Probe.of(rounded, preprocessing)),
    }


def quantise(exported: Path, path: Path, images_NHWC: Pixels) -> None:
    """Write the graph with eight-bit weights and activations, its head left in float32.

    Weights have seven bits, one scale a channel: without VNNI the CPU adds pairs of products in 16
    bits, which eight would overflow, so that a machine would answer otherwise than another
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
    """
    # A tenth of a second, only where it is needed.
    from onnxruntime.quantization import (  # noqa: PLC0415
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            starts = range(0, len(images_NHWC), CALIBRATED_AT_ONCE)
            self._batches = (images_NHWC[at : at + CALIBRATED_AT_ONCE] for at in starts)

        def get_next(self) -> dict[str, Pixels] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch}

    graph = onnx.load(exported)
    with _quiet():
        quantize_static(
            str(exported),
            str(path),
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_head(graph),
        )
    quantised = onnx.load(path)
    del quantised.metadata_props[:]
    quantised.metadata_props.extend(graph.metadata_props)
    onnx.save(quantised, path)


def _head(graph: onnx.ModelProto) -> list[str]:
    """The nodes from the last product to the probabilities: cheap, and what calibration is of."""
    makers = {output: node for node in graph.graph.node for output in node.output}
    wanted, names = [PROBABILITIES], []
    while wanted:
        node = makers.get(wanted.pop())
        if node is None or node.name in names:
            continue
        names.append(node.name)
        if node.op_type not in {"Gemm", "MatMul"}:
            wanted.extend(node.input)
    return names


def _timed(exact: Run, rounded: Run, material: Material) -> Candidate:
    images_NHWC = material.calibration_NHWC
    runs = {"float": exact, RUNTIME: rounded}
    times = in_turns(runs, one_and_full(images_NHWC, material.batch))
    figures = Candidate(
        one_ms=round(times[RUNTIME]["one"], 3),
        batch_ms=round(times[RUNTIME]["batch"], 3),
        difference=difference(exact(images_NHWC[:16]), rounded(images_NHWC[:16])),
    )
    ratios = [times[RUNTIME][key] / max(times["float"][key], 1e-3) for key in ("one", "batch")]
    taken = math.sqrt(math.prod(ratios))
    if taken > 1 - LEAST_SAVED:
        reason = f"it takes {taken:.0%} of the time in float32; {1 - LEAST_SAVED:.0%} at most pay"
        raise DoesNotHold(reason, figures)
    return figures


def _compared(exact: Run, rounded: Run, images: Compared, figures: Candidate) -> Fidelity:
    if not images.enough:
        raise DoesNotHold(
            f"there are {len(images.targets_N)} images, {images.labels} of them labelled, that it "
            f"was not trained on with a label; {LEAST_IMAGES} or {LEAST_LABELS} are needed",
            figures,
        )
    fidelity = Fidelity.of(
        _probabilities(exact, images.images_NHWC),
        _probabilities(rounded, images.images_NHWC),
        images.targets_N,
    )
    reason = fidelity.refused() or _alone(rounded, images.images_NHWC[:16])
    if reason is not None:
        raise DoesNotHold(reason, figures, fidelity)
    return fidelity


def _probabilities(run: Run, images_NHWC: Pixels) -> Floats:
    """In batches of 16."""
    parts = []
    for at in range(0, len(images_NHWC), 16):
        _, probabilities_BK = run(images_NHWC[at : at + 16])
        assert probabilities_BK is not None
        parts.append(probabilities_BK)
    return np.concatenate(parts)


def _alone(run: Run, images_NHWC: Pixels) -> str | None:
    """Whether an image alone gets another answer than among others."""
    together = _probabilities(run, images_NHWC)
    alone = np.concatenate([_probabilities(run, image_HWC[None]) for image_HWC in images_NHWC])
    apart = float(np.abs(together - alone).max())
    return None if apart <= ROUNDING else f"alone it answers otherwise, by {apart:.2g}"


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises, through the root logger, to prepare the graph: it is prepared."""
    root = logging.getLogger()

    def nothing(_: logging.LogRecord) -> bool:
        return False

    root.addFilter(nothing)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(nothing)
