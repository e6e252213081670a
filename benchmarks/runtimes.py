"""How long does a pass take in each runtime, torch.compile among them, which is not offered?

Networks with random weights, made-up photographs, two threads or as many as there are cores; the
runtimes in turns, medians. `torch.compile` once as it comes and once with frozen weights, for each
size of batch a graph of its own: it needs a C++ compiler, and the time to compile stands beside.

Run with: python -m benchmarks.runtimes [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cells import versions
from benchmarks.made_up import photograph
from core.learning.architecture import Architecture
from core.learning.onnx_export import Answering, export_onnx
from core.learning.preprocessing import Preprocessing
from core.learning.runtimes import Pixels
from core.learning.runtimes.choice import cpu_name, in_turns, one_and_full
from core.learning.runtimes.eager import eager
from core.learning.runtimes.onnx import onnxruntime_run
from core.learning.runtimes.run import Floats, Run, difference

CASES = {"resnet10@32": ("resnet10", 32), "resnet18@224": ("resnet18", 224)}
CLASSES = tuple(f"class {number}" for number in range(10))
BATCH = 32


def compiled(answering: Answering, inputs: dict[str, Pixels], *, frozen: bool) -> tuple[Run, float]:
    """A runtime of `torch.compile` for these sizes of batches; seconds that it took to compile."""
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    options: dict[str, Any] = {"freezing": True} if frozen else {}
    network = torch.compile(answering, dynamic=False, options=options)

    # Freezing needs no_grad; inference_mode has made it refuse.
    @torch.no_grad()
    def run(canvases_BHWC: Pixels) -> tuple[Floats, Floats | None]:
        embedding_BD, probabilities_BK = network(torch.from_numpy(canvases_BHWC))
        return embedding_BD.numpy(), probabilities_BK.numpy()

    began = time.perf_counter()
    for pixels in inputs.values():
        run(pixels)
    return run, time.perf_counter() - began


def measure(encoder: str, side: int, *, threads: int, folder: Path) -> dict[str, Any]:
    """Milliseconds of a lone image and of a full batch by runtime."""
    torch.manual_seed(0)
    shape = Architecture(encoder=encoder, image_size=side, channels=3, class_count=len(CLASSES))
    modules = [shape.build().eval() for _ in range(3)]
    for module in modules[1:]:
        module.load_state_dict(modules[0].state_dict())
    preprocessing = Preprocessing(image_size=side, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    exported = folder / f"{encoder}.onnx"
    export_onnx(modules[0], preprocessing, exported, classes=CLASSES)
    random = np.random.default_rng(0)
    images = [np.asarray(photograph(random, (side, side))) for _ in range(BATCH)]
    inputs = one_and_full(np.stack(images), BATCH)
    runs: dict[str, Run] = {
        "eager": eager(modules[0], preprocessing, threads=threads),
        "onnxruntime": onnxruntime_run(exported, threads=threads),
    }
    seconds = {}
    makers: dict[str, Callable[[], tuple[Run, float]]] = {
        "compile": lambda: compiled(Answering(modules[1], preprocessing), inputs, frozen=False),
        "compile, frozen": lambda: compiled(
            Answering(modules[2], preprocessing), inputs, frozen=True
        ),
    }
    for name, make in makers.items():
        runs[name], seconds[name] = make()
    answers = {name: run(inputs["batch"]) for name, run in runs.items()}
    taken = in_turns(runs, inputs)
    return {
        name: {
            "one_ms": round(taken[name]["one"], 2),
            "batch_ms": round(taken[name]["batch"], 1),
            "difference": float(f"{difference(answers['eager'], answers[name]):.1g}"),
            **({"compiled_in_s": round(seconds[name], 1)} if name in seconds else {}),
        }
        for name in runs
    }


def main() -> None:
    """Print a table, and the figures as one JSON object on the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise SystemExit("torch.compile needs a C++ compiler: install g++, or name yours in CXX")
    torch.set_num_threads(options.threads)
    print(f"{cpu_name()}, {options.threads} threads, load {os.getloadavg()[0]:.1f}")
    print(", ".join(f"{name} {version}" for name, version in versions().items()), flush=True)
    printed = {}
    with tempfile.TemporaryDirectory(prefix="fewlabels-runtimes-") as folder:
        for name, (encoder, side) in CASES.items():
            found = measure(encoder, side, threads=options.threads, folder=Path(folder))
            printed[name] = found
            print(f"\n| {name} | one image, ms | {BATCH}, ms | differs by | compiled in, s |")
            print("|---|---|---|---|---|")
            for runtime, row in found.items():
                cells = (row["one_ms"], row["batch_ms"], row["difference"])
                words = " | ".join(map(str, (*cells, row.get("compiled_in_s", ""))))
                print(f"| {runtime} | {words} |", flush=True)
    print(json.dumps(printed))


if __name__ == "__main__":
    main()
