"""The runtimes that there are for a model, compared on images of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from core.learning.classifier import Classifier
from core.learning.encoders import Encoder
from core.learning.preprocessing import Preprocessing
from core.learning.runtimes.choice import EAGER, choose
from core.learning.runtimes.eager import eager
from core.learning.runtimes.onnx import has_openvino, onnxruntime_run, openvino_run
from core.learning.runtimes.probe import Probe
from core.learning.runtimes.run import Pixels, Run


def measured(
    module: Encoder | Classifier,
    preprocessing: Preprocessing,
    exported: Path,
    images_NHWC: Pixels,
    *,
    batch: int,
) -> dict[str, Any]:
    """What a manifest says under `runtime`: the fastest, the figures of all, a probe of answers.

    Args:
        module: As it was trained.
        preprocessing: The module's.
        exported: What `export_onnx` made of it.
        images_NHWC: Canvases of real images.
        batch: Most images that serving will pass at once.
    """
    runtimes = runtimes_of(module, preprocessing, exported)
    choice = choose(runtimes, images_NHWC, batch=batch, threads=torch.get_num_threads())
    return {**choice.to_dict(), "probe": asdict(Probe.of(runtimes[EAGER](), preprocessing))}


def runtimes_of(
    module: Encoder | Classifier, preprocessing: Preprocessing, exported: Path
) -> dict[str, Callable[[], Run]]:
    """How each runtime that there is here is made; with as many threads as PyTorch has."""
    threads = torch.get_num_threads()
    runtimes: dict[str, Callable[[], Run]] = {
        EAGER: partial(eager, module, preprocessing),
        "onnxruntime": partial(onnxruntime_run, exported, threads=threads),
    }
    if has_openvino():
        runtimes["openvino"] = partial(openvino_run, exported, threads=threads)
    return runtimes
