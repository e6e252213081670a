"""What one would put there otherwise: LitServe, and a plain FastAPI handler.

Both hold the same runtime with the same threads and preprocess by the same function. Run by
`benchmarks.serving`: python -m benchmarks.serving.others NAME FOLDER ENCODER PORT [OPTIONS]
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import litserve
import torch
import uvicorn
from fastapi import FastAPI, Request, UploadFile
from fastapi.concurrency import run_in_threadpool

from benchmarks.serving.model import Opened
from core.inference.model import Answer
from core.learning.runtimes import Pixels

CORES = os.cpu_count() or 1
WORDS = "FEWLABELS_BENCH_WORDS"


class Classify(litserve.LitAPI):  # type: ignore[misc]
    """LitServe's way: decode, batch, predict, unbatch, encode, in a process of its own."""

    folder: Path
    encoder: str
    workers: int

    def setup(self, device: str) -> None:  # noqa: ARG002 — LitServe's signature
        """Load the model in the worker."""
        torch.set_num_threads(1)
        self.opened = Opened(self.folder, self.encoder, threads=max(1, CORES // self.workers))

    def decode_request(self, request: UploadFile) -> Pixels:
        """The canvas of an uploaded file."""
        return self.opened.canvas(request.file.read())

    def batch(self, inputs: list[Pixels]) -> list[Pixels]:
        """As they are: the model stacks them."""
        return list(inputs)

    def predict(self, x: list[Pixels] | Pixels) -> list[Answer] | Answer:
        """Answers for a batch, or for the one image where batching is off."""
        if isinstance(x, list):
            return self.opened.forward(x)
        [answer] = self.opened.forward([x])
        return answer

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        """One for each request."""
        return output

    def encode_response(self, output: Answer) -> dict[str, Any]:
        """As JSON."""
        return self.opened.said(output)


class ClassifyMany(Classify):
    """The same with several files in a request, which the service knows how to put together."""

    def decode_request(self, request: list[UploadFile]) -> list[Pixels]:  # type: ignore[override]
        """The canvases of the files."""
        return [self.opened.canvas(file.file.read()) for file in request]

    def predict(self, x: Any) -> Any:
        """Answers for all images of a batch of requests at once, or of one request."""
        if x and not isinstance(x[0], list):
            return self.opened.forward(x)
        answers = iter(self.opened.forward([canvas for canvases in x for canvas in canvases]))
        return [[next(answers) for _ in canvases] for canvases in x]

    def encode_response(self, output: list[Answer]) -> dict[str, Any]:  # type: ignore[override]
        """As JSON."""
        return {"items": [self.opened.said(answer) for answer in output]}


def serve_litserve(folder: Path, encoder: str, port: int, options: dict[str, Any]) -> None:
    """LitServe with these settings, until it is killed."""
    kind = ClassifyMany if options["each"] > 1 else Classify
    api = kind(max_batch_size=options["batch"], batch_timeout=options["timeout"])
    api.folder, api.encoder, api.workers = folder, encoder, options["workers"]
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=options["workers"],
    )
    server.run(
        port=port,
        num_api_servers=options["api_servers"],
        generate_client_file=False,
        log_level="error",
        host="127.0.0.1",
    )


def plain() -> FastAPI:
    """What is written in ten minutes; made anew in each of its processes."""
    _, folder, encoder, _, options = _words()
    opened = Opened(folder, encoder, threads=max(1, CORES // options["workers"]))
    torch.set_num_threads(1)
    app = FastAPI()

    def answer(images: list[bytes]) -> list[dict[str, Any]]:
        answers = opened.forward([opened.canvas(data) for data in images])
        return [opened.said(one) for one in answers]

    async def one(request: Request) -> dict[str, Any]:
        [said] = await run_in_threadpool(answer, [await request.body()])
        return said

    async def many(request: list[UploadFile]) -> dict[str, Any]:
        images = [await file.read() for file in request]
        return {"items": await run_in_threadpool(answer, images)}

    app.post("/predict")(one if options["each"] == 1 else many)
    return app


def _words() -> tuple[str, Path, str, int, dict[str, Any]]:
    name, folder, encoder, port, options = json.loads(
        os.environ.get(WORDS) or json.dumps(sys.argv[1:])
    )
    return name, Path(folder), encoder, int(port), json.loads(options)


def main() -> None:
    """Serve, until killed."""
    name, folder, encoder, port, options = _words()
    torch.set_num_threads(1)
    if name == "litserve":
        serve_litserve(folder, encoder, port, options)
        return
    os.environ[WORDS] = json.dumps(sys.argv[1:])  # for the processes that uvicorn starts
    uvicorn.run(
        "benchmarks.serving.others:plain",
        factory=True,
        workers=options["workers"],
        port=port,
        log_level="error",
        http="httptools",
        loop="uvloop",
    )


if __name__ == "__main__":
    main()
