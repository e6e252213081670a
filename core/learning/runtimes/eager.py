"""The module run by PyTorch as it was trained; the runtime that others are compared with."""

from __future__ import annotations

import threading

import torch

from core.learning.classifier import Classifier
from core.learning.encoders import Encoder
from core.learning.intraop import use_threads
from core.learning.onnx_export import Answering
from core.learning.preprocessing import Preprocessing
from core.learning.runtimes.run import Floats, Pixels, Run


def eager(
    module: Encoder | Classifier,
    preprocessing: Preprocessing,
    *,
    threads: int | None = None,
    device: str = "cpu",
) -> Run:
    """A runtime without any preparation.

    Args:
        module: Moved to the device, in evaluation mode from here on.
        preprocessing: The module's.
        threads: Of each thread that calls it; None leaves them as they are. OpenMP counts them
            for each calling thread, so those that decode may have another number.
        device: As torch names it.
    """
    answering = Answering(module, preprocessing).eval().to(device)
    called = threading.local()

    @torch.inference_mode()
    def run(canvases_BHWC: Pixels) -> tuple[Floats, Floats | None]:
        if threads is not None and not getattr(called, "before", False):
            use_threads(threads)
            called.before = True
        outputs = answering(torch.from_numpy(canvases_BHWC).to(device))
        embedding_BD, *probabilities_BK = (output.float().cpu().numpy() for output in outputs)
        return embedding_BD, probabilities_BK[0] if probabilities_BK else None

    return run
