"""The exported file run by ONNX Runtime, or by OpenVINO where that is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from core.learning.onnx_export import EMBEDDING, INPUT, PROBABILITIES
from core.learning.runtimes.run import Floats, Pixels, Run


def onnxruntime_run(path: Path, *, threads: int) -> Run:
    """The file in ONNX Runtime on the CPU.

    Args:
        path: What `export_onnx` wrote.
        threads: Of a pass. They do not spin while they wait, which would take the cores from
            threads that decode (https://github.com/microsoft/onnxruntime/issues/13808).
    """
    import onnxruntime  # noqa: PLC0415 — a tenth of a second, and 30 MB, only where it runs

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(canvases_BHWC: Pixels) -> tuple[Floats, Floats | None]:
        found = dict(zip(names, session.run(names, {INPUT: canvases_BHWC}), strict=True))
        return found[EMBEDDING], found.get(PROBABILITIES)

    return run


def openvino_run(path: Path, *, threads: int) -> Run:
    """The file in OpenVINO on the CPU, in float32.

    Raises:
        ModuleNotFoundError: OpenVINO is not installed.
    """
    import openvino  # noqa: PLC0415 — optional

    compiled = openvino.Core().compile_model(
        str(path),
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # It would take bfloat16 by itself where the CPU has it: answers differ by then.
            "INFERENCE_PRECISION_HINT": "f32",
        },
    )
    request = compiled.create_infer_request()
    names = [output.get_any_name() for output in compiled.outputs]

    def run(canvases_BHWC: Pixels) -> tuple[Floats, Floats | None]:
        request.infer({INPUT: canvases_BHWC})
        # Copies: the next pass writes into the same memory.
        found = {name: np.array(request.get_tensor(name).data) for name in names}
        return found[EMBEDDING], found.get(PROBABILITIES)

    return run


def has_openvino() -> bool:
    """Whether the optional package is there."""
    return importlib.util.find_spec("openvino") is not None
