"""Aliases move under load, over several API processes: no request fails, none is mixed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen
from uuid import UUID

import numpy as np
import psutil
import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from core.config import Settings, child_environment
from core.embedded.valkey import free_port
from core.inference.engine import Engine
from tests.integration.api.test_bad_inference import BASE64
from tests.tiny_models import CLASSES

LIMIT = 60.0
PROCESSES = 2
Add = Callable[..., UUID]


def until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not happened():
        assert time.monotonic() < deadline, f"not within {LIMIT} s: {what}"
        time.sleep(0.02)


def sent(method: str, url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    request.method = method
    with urlopen(request, timeout=LIMIT) as answer:
        return json.loads(answer.read())  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Running:
    """An API of several processes."""

    process: psutil.Popen
    url: str


@pytest.fixture(scope="module")
def api(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`fewlabels api --workers 2` as an operator starts it."""
    port = free_port("127.0.0.1")
    own = settings.model_copy(update={"port": port, "key_cache_seconds": 1.0})
    log = tmp_path_factory.mktemp("swaps") / "api.log"
    command = [sys.executable, "-m", "core.cli", "api", "--workers", str(PROCESSES)]
    with log.open("wb") as file:
        process = psutil.Popen(
            command, env=child_environment(own), stdout=file, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return bool(urlopen(f"{url}/readyz", timeout=LIMIT).status == 200)
        except URLError:
            return False

    try:
        until(answers, "the API is ready")
        yield Running(process, url)
    finally:
        family = [process, *process.children(recursive=True)] if process.is_running() else []
        for one in family:
            one.kill()
        process.wait(LIMIT)


def test_a_swap_and_the_way_back_fail_no_request_and_mix_none(api: Running, add_model: Add) -> None:
    models = [str(add_model(classes=CLASSES, seed=seed)) for seed in (31, 32)]
    alias = f"{api.url}/aliases/swapped"
    sent("PUT", alias, {"model_id": models[0]})
    body = {"model": "swapped", "images": [BASE64] * 3}
    vectors = {
        model: sent("POST", f"{api.url}/embed", {**body, "model": model})["items"][0]["embedding"]
        for model in models
    }
    stop = threading.Event()
    answers: list[dict[str, Any]] = []
    failures: list[Exception] = []

    def ask() -> None:
        while not stop.is_set():
            try:
                answers.append(sent("POST", f"{api.url}/embed", body))
            except Exception as error:  # noqa: BLE001 — told below
                failures.append(error)

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        for model in (models[1], models[0], models[1]):
            if model == models[0]:
                sent("POST", f"{alias}/rollback", {})
            else:
                sent("PUT", alias, {"model_id": model})
            # Every process has followed when it alone has answered many times over.
            until(
                lambda model=model: {a["model_id"] for a in answers[-40:]} == {model},  # type: ignore[misc]
                "all processes follow the alias",
            )
    finally:
        stop.set()
        for caller in callers:
            caller.join(LIMIT)
    assert failures == []
    for answer in answers:
        for item in answer["items"]:
            np.testing.assert_allclose(item["embedding"], vectors[answer["model_id"]], atol=1e-5)


def test_the_weights_are_in_memory_once(api: Running, settings: Settings, add_model: Add) -> None:
    model = str(add_model(classes=CLASSES, seed=33))
    sha256 = sent_weights(api, model)
    mapped: set[int] = set()

    def all_have_it() -> bool:
        sent("POST", f"{api.url}/embed", {"model": model, "images": [BASE64]})
        for child in api.process.children():
            maps = Path(f"/proc/{child.pid}/maps").read_text()
            if any(sha256 in line for line in maps.splitlines()):
                mapped.add(child.pid)
        return len(mapped) == PROCESSES

    until(all_have_it, "each process maps the file of the weights")


def test_metrics_are_those_of_all_processes(api: Running, add_model: Add) -> None:
    body = {"model": str(add_model(classes=CLASSES, seed=34)), "images": [BASE64]}

    def answered() -> float:
        with urlopen(f"{api.url}/metrics", timeout=LIMIT) as answer:
            text = answer.read().decode()
        assert "fewlabels_inference_queue_size 0.0" in text
        line = 'fewlabels_inference_images_total{outcome="answered"} '
        return float(text.partition(line)[2].split("\n")[0])

    before = answered()
    for number in range(1, 21):  # whichever process is asked
        sent("POST", f"{api.url}/embed", body)
        assert answered() == before + number


def sent_weights(api: Running, model: str) -> str:
    with urlopen(f"{api.url}/models/{model}", timeout=LIMIT) as answer:
        manifest = json.loads(answer.read())["manifest"]
    return str(manifest["files"]["weights.safetensors"]["sha256"])


def test_pinned_models_are_there_before_they_are_asked_for_and_follow_their_alias(
    settings: Settings, client: TestClient, add_model: Add
) -> None:
    one, two = (add_model(classes=CLASSES, seed=seed) for seed in (41, 42))
    client.put("/aliases/pinned", json={"model_id": str(one)})
    wishes = {"pinned_models": "pinned, default/not-there, other/pinned"}
    app = create_app(settings.model_copy(update=wishes))
    with TestClient(app) as calling:

        def loaded() -> set[UUID]:
            engine: Engine = app.state.engine.result()
            return {served.model.model_id for served in engine._shelf.loaded()}

        until(lambda: calling.get("/readyz").status_code == 200, "ready")
        assert loaded() == {one}
        client.put("/aliases/pinned", json={"model_id": str(two)})
        until(lambda: two in loaded(), "the alias's new model is loaded")
        until(lambda: app.state.engine.result()._shelf._pinned == {two}, "only it is pinned")


def test_no_process_outlives_a_killed_parent(api: Running) -> None:
    family = api.process.children(recursive=True)
    assert len(family) >= PROCESSES
    os.kill(api.process.pid, signal.SIGKILL)
    api.process.wait(LIMIT)
    _, alive = psutil.wait_procs(family, timeout=LIMIT)
    assert alive == []
