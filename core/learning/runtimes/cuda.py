"""A module on a CUDA device: half precision, pinned copies, a graph for each size of batch.

Written without a GPU at hand and not run yet; `tests/gpu/test_cuda_runtime.py` is to be run first.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch
from torch import Tensor

from core.learning.classifier import Classifier
from core.learning.encoders import Encoder
from core.learning.onnx_export import Answering
from core.learning.preprocessing import Preprocessing
from core.learning.runtimes.run import Floats, Pixels, Run

WARM_UPS = 3  # before a capture: cuDNN picks its algorithms in the first passes


@dataclass(frozen=True, slots=True)
class _Graph:
    """A captured pass: what it reads, what it writes, on the host and on the device."""

    graph: torch.cuda.CUDAGraph
    pinned: Tensor
    inputs: Tensor
    outputs: tuple[Tensor, ...]
    answers: tuple[Tensor, ...]


def buckets(most: int) -> list[int]:
    """Sizes of batches with a graph: powers of two, and the largest."""
    sizes = [1]
    while sizes[-1] * 2 < most:
        sizes.append(sizes[-1] * 2)
    return sizes if most == 1 else [*sizes, most]


def cuda_graphs(
    module: Encoder | Classifier,
    preprocessing: Preprocessing,
    *,
    device: str,
    most: int,
) -> Run:
    """A runtime that replays graphs; a batch is filled up to the next size with what was there.

    Weights stay float32 and convolutions run in float16 by autocast, channels last, which the
    encoder sees to; vectors are normalised and probabilities taken in float32, as autocast has it.

    Args:
        module: Moved to the device.
        preprocessing: The module's.
        device: As torch names it.
        most: Largest batch; larger ones are answered in parts.
    """
    answering = Answering(module, preprocessing).eval().to(device)
    sizes = buckets(most)
    graphs = {size: _capture(answering, preprocessing, size, device) for size in reversed(sizes)}
    one_at_a_time = threading.Lock()  # the graphs' memory is written by every pass

    def run(canvases_BHWC: Pixels) -> tuple[Floats, Floats | None]:
        parts = torch.split(torch.from_numpy(canvases_BHWC), most)
        with one_at_a_time:
            answers = [_replay(graphs, sizes, part, preprocessing) for part in parts]
        embedding_BD, *rest = (torch.cat(rows).numpy() for rows in zip(*answers, strict=True))
        return embedding_BD, rest[0] if rest else None

    return run


@torch.inference_mode()
def _replay(
    graphs: dict[int, _Graph], sizes: list[int], part_BHWC: Tensor, preprocessing: Preprocessing
) -> list[Tensor]:
    count = len(part_BHWC)
    captured = graphs[next(size for size in sizes if size >= count)]
    captured.pinned[:count].copy_(part_BHWC)
    images_BHWC = captured.pinned.to(captured.inputs.device, non_blocking=True)
    # Outside the graph: its statistics come from the host, which no capture may wait for.
    captured.inputs.copy_(preprocessing.normalise(images_BHWC))
    captured.graph.replay()
    for answer, output in zip(captured.answers, captured.outputs, strict=True):
        answer.copy_(output, non_blocking=True)
    # All of it is on the calling thread's current stream: the answers are there after this.
    torch.cuda.current_stream(captured.inputs.device).synchronize()
    return [answer[:count].clone() for answer in captured.answers]


@torch.inference_mode()
def _capture(answering: Answering, preprocessing: Preprocessing, size: int, device: str) -> _Graph:
    side, channels = preprocessing.image_size, preprocessing.channels
    pinned = torch.zeros((size, side, side, channels), dtype=torch.uint8, pin_memory=True)
    inputs = preprocessing.normalise(pinned.to(device))

    def forward() -> tuple[Tensor, ...]:
        # Without its cache: casts of weights are part of the graph and belong to its memory.
        with torch.autocast("cuda", torch.float16, cache_enabled=False):
            return tuple(output.float() for output in answering.answer(inputs))

    # https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs: warmed up on a side stream.
    side_stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side_stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side_stream):
        for _ in range(WARM_UPS):
            forward()
    torch.cuda.current_stream(device).wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = forward()
    answers = tuple(torch.empty(o.shape, dtype=o.dtype, pin_memory=True) for o in outputs)
    return _Graph(graph, pinned, inputs, outputs, answers)
