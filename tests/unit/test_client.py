"""The client against a real HTTP server that answers as the service does."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from core.client import ServiceClient, ServiceRefused
from core.demo.draw import Draw
from core.demo.images import Sample
from core.demo.run import Errand, StageFailed, Walk, curl_line

JOB = {
    "id": "j1",
    "stage": "pretrain",
    "state": "queued",
    "model_id": None,
    "progress": None,
    "error": None,
    "started_at": None,
    "finished_at": None,
    "plan": {"encoder": "resnet10", "image_size": 16, "device": "cpu", "epochs": 3},
}
FAILED = {
    **JOB,
    "state": "failed",
    "error": {"code": "NotEnoughImages", "detail": "far too few"},
    "started_at": "2026-01-01T00:00:00Z",
    "finished_at": "2026-01-01T00:00:02Z",
}
Reply = tuple[int, dict[str, Any]]


class Handler(BaseHTTPRequestHandler):
    """Answers a call with the next of the replies for it; the last one stays."""

    replies: dict[str, list[Reply]]
    calls: list[tuple[str, dict[str, str], bytes]]

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        call = f"{self.command} {self.path}"
        self.calls.append((call, dict(self.headers), body))
        replies = self.replies[call]
        status, reply = replies.pop(0) if len(replies) > 1 else replies[0]
        self.send_response(status)
        self.send_header("retry-after", "0")
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    do_GET = do_POST = do_PUT = answer  # noqa: N815 — the names that http.server calls

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    Handler.replies, Handler.calls = {}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(server: ThreadingHTTPServer) -> Iterator[ServiceClient]:
    with ServiceClient(f"http://127.0.0.1:{server.server_port}/", api_key="fl_key") as client:
        yield client


def test_the_key_is_sent_and_a_refusal_has_the_words_of_the_service(client: ServiceClient) -> None:
    Handler.replies["POST /datasets"] = [(409, {"detail": "the name 'x' is taken"})]
    with pytest.raises(ServiceRefused, match=r"^POST /datasets: the name 'x' is taken$"):
        client.create_dataset("x")
    assert Handler.calls[0][1]["Authorization"] == "Bearer fl_key"


def test_a_busy_service_is_asked_again(client: ServiceClient, tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"png")
    item = {"label": "x", "predictions": [{"label": "x", "probability": 0.75}], "error": None}
    Handler.replies["POST /predict"] = [(429, {"detail": "full"}), (200, {"items": [item]})]
    (prediction,) = client.predict("demo", [image])
    assert (prediction.label, prediction.probability) == ("x", 0.75)
    assert len(Handler.calls) == 2


def test_images_that_cannot_be_used_are_answered_one_by_one(
    client: ServiceClient, tmp_path: Path
) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"no png")
    fault = {"index": 0, "code": "ImageInvalid", "detail": "not an image"}
    Handler.replies["POST /predict"] = [(422, {"detail": "none", "errors": [fault]})]
    (prediction,) = client.predict("demo", [image])
    assert (prediction.label, prediction.reason) == (None, "not an image")
    Handler.replies["POST /predict"] = [(422, {"detail": "top_k: found 0", "errors": None})]
    with pytest.raises(ServiceRefused, match="top_k"):
        client.predict("demo", [image])


def test_no_service_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with ServiceClient(url) as client, pytest.raises(ServiceRefused, match="does not answer"):
            client.create_dataset("x")
    with ServiceClient("nonsense") as client, pytest.raises(ServiceRefused, match="nonsense"):
        client.create_dataset("x")


def test_a_failed_job_ends_the_walk_with_its_reason_and_the_others_are_cancelled(
    client: ServiceClient, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"png")
    sample = Sample("a.png", path, "x")
    others = {name: {**JOB, "id": name, "stage": name} for name in ("finetune", "distill")}
    scratch = {**JOB, "id": "scratch", "stage": "finetune"}
    Handler.replies |= {
        "POST /datasets": [(201, {"id": "d1"})],
        "POST /datasets/d1/images": [(200, {"added": 1, "duplicates": 0, "lines": []})],
        "PUT /datasets/d1/labels": [(200, {"labelled": 1})],
        "GET /datasets/d1": [(200, {"image_count": 21})],
        "POST /jobs": [(202, {"jobs": [JOB, *others.values()]}), (202, {"jobs": [scratch]})],
        "GET /jobs/j1": [(200, FAILED)],
        "GET /jobs/scratch": [(200, scratch)],
        "POST /jobs/scratch/cancel": [(200, {})],
    }
    for name, job in others.items():
        Handler.replies[f"GET /jobs/{name}"] = [(200, job)]
        Handler.replies[f"POST /jobs/{name}/cancel"] = [(200, {})]
    errand = Errand(name="x", draw=Draw([sample], [sample], []), augmentation="document", epochs=7)
    walk = Walk(client, Console(file=io.StringIO()), stopped=lambda: False)
    with pytest.raises(StageFailed, match=r"pretrain job j1 has failed: NotEnoughImages: far too"):
        walk.run(errand)
    calls = [call for call, _, _ in Handler.calls]
    assert {f"POST /jobs/{name}/cancel" for name in ("finetune", "distill", "scratch")} <= {*calls}
    assert "POST /jobs/j1/cancel" not in calls
    pipeline, alone = (json.loads(body) for call, _, body in Handler.calls if call == "POST /jobs")
    few = {"epochs": 7, "augmentation": "document"}
    assert pipeline["pretrain"] == pipeline["distill"] == {**few, "batch_size": 10}
    assert pipeline["finetune"] == few
    once = {"method": "full", "calibrate": False}
    assert alone == {"stage": "finetune", "dataset_id": "d1", **once, **few}


def test_the_line_to_paste(tmp_path: Path) -> None:
    tiny, large = tmp_path / "tiny.png", tmp_path / "it's large.png"
    tiny.write_bytes(b"x")
    large.write_bytes(b"x" * 1000)
    url = "http://127.0.0.1:1"
    assert '"images": ["eA=="]' in curl_line(url, Sample("tiny.png", tiny))
    assert curl_line(url, Sample("large.png", large)).endswith("it'\"'\"'s large.png'")
