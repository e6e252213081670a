"""The same model behind a plain FastAPI handler, and behind no server.

Run with: python -m benchmarks.serving.peers fastapi|bare FOLDER PORT|SECONDS
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

from core.images.decoding import decode
from core.inference.model import Answer, LoadedModel, Pixels
from core.registry.artifact import ModelSource
from core.storage.store import open_store

BATCH = 32
DECODERS = 2  # as many threads as the service takes by itself
LIMITS = {"max_bytes": 2**25, "max_pixels": 5 * 10**7}


def load(folder: Path) -> LoadedModel:
    """The model that the service serves."""
    told = json.loads((folder / "model.json").read_text())
    source = ModelSource(
        UUID(told["id"]), told["manifest"], open_store(told["store"]), folder / "cache"
    )
    return LoadedModel(source, "cpu")


def canvas(model: LoadedModel, data: bytes) -> Pixels:
    """An image file as the model gets it."""
    return model.preprocessing.canvas(decode(data, **LIMITS).pixels_HWC)


def shown(answer: Answer, classes: list[str]) -> dict[str, Any]:
    """What is answered."""
    assert answer.probabilities_K is not None
    best = int(answer.probabilities_K.argmax())
    return {"label": classes[best], "probability": float(answer.probabilities_K[best])}


def bare(folder: Path, seconds: float) -> dict[str, float]:
    """No server: decode and forward in a loop, batches of 32 and single images."""
    model = load(folder)
    files = [path.read_bytes() for path in sorted((folder / "images").iterdir())]
    batch = (files * BATCH)[:BATCH]
    with ThreadPoolExecutor(DECODERS) as threads:
        rounds, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            model.forward(list(threads.map(lambda data: canvas(model, data), batch)))
            rounds += 1
        per_second = rounds * BATCH / (time.perf_counter() - began)
    times = []
    end = time.perf_counter() + seconds / 2
    while time.perf_counter() < end:
        began = time.perf_counter()
        model.forward([canvas(model, files[len(times) % len(files)])])
        times.append((time.perf_counter() - began) * 1000)
    return {"per_second": round(per_second, 1), "p50": round(statistics.median(times), 2)}


def serve_fastapi(folder: Path, port: int) -> None:
    """What one writes in five minutes: a handler that decodes, asks the model and answers."""
    import uvicorn  # noqa: PLC0415 - each peer imports its own
    from fastapi import FastAPI, Request  # noqa: PLC0415
    from fastapi.concurrency import run_in_threadpool  # noqa: PLC0415

    app, model = FastAPI(), load(folder)

    def work(data: bytes) -> dict[str, Any]:
        [answer] = model.forward([canvas(model, data)])
        return shown(answer, model.classes)

    async def predict(request: Request) -> dict[str, Any]:
        return await run_in_threadpool(work, await request.body())

    predict.__annotations__["request"] = Request
    app.post("/predict")(predict)
    uvicorn.run(app, port=port, log_level="warning", access_log=False)


def main() -> None:
    """Serve until it is ended, or print what the bare loop takes."""
    kind, folder = sys.argv[1], Path(sys.argv[2])
    if kind == "bare":
        print(json.dumps(bare(folder, float(sys.argv[3]))))
    else:
        serve_fastapi(folder, int(sys.argv[3]))


if __name__ == "__main__":
    main()
