"""The servers of the comparison, each in processes of its own, stopped while it is not asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.serving.load import Asking
from core.config import Settings
from core.embedded.commands import api_command, api_environment
from core.embedded.valkey import free_port

CORES = os.cpu_count() or 1
MEBIBYTE = 2**20
START_SECONDS = 120.0


class Server:
    """A server in a process of its own; asked by raw images, or by forms with files in `part`."""

    def __init__(self, command: list[str], port: int, *, path: str, part: str | None) -> None:
        self._port, self._path, self._part = port, path, part
        self._fields: dict[str, str] = {}
        self._command = command

    def form(self, part: str, path: str, **fields: str) -> None:
        """Be asked by forms."""
        self._part, self._path, self._fields = part, path, fields

    def start(self, environment: dict[str, str] | None = None) -> None:
        """Start the process."""
        log = Path(tempfile.gettempdir(), f"fewlabels-bench-{self._port}.log").open("wb")  # noqa: SIM115
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=log, env=environment
        )

    def ready(self, images: list[Path], each: int) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(subprocess.CalledProcessError):
                if self.ask(images[:each], clients=1, seconds=0.2, each=each)["errors"] == 0:
                    return
            time.sleep(0.5)
        raise SystemExit(f"not started: {self.process.args}")

    def ask(
        self, images: list[Path], *, clients: int, seconds: float, each: int
    ) -> dict[str, float]:
        """What clients see of it, and what it takes."""
        asking = Asking(
            port=self._port,
            path=self._path,
            clients=clients,
            seconds=seconds,
            each=each,
            part=self._part,
            fields=self._fields,
        )
        command = [sys.executable, "-m", "benchmarks.serving.load", asking.words()]
        before = self._used()
        done = subprocess.run(
            [*command, *map(str, images)], check=True, capture_output=True, text=True
        )
        found: dict[str, float] = json.loads(done.stdout)
        # What neighbours on the machine hardly change, unlike times.
        processor = 1000 * (self._used() - before) / max(1, found["images"])
        return {**found, "processor_ms": round(processor, 2), "megabytes": self._megabytes()}

    def send(self, number: int) -> None:
        """Send a signal to all of its processes."""
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def end(self) -> None:
        """Kill it."""
        self.send(signal.SIGKILL)
        self.process.wait()

    def _used(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._tree())

    def _megabytes(self) -> int:
        # Shared pages counted in parts.
        return round(sum(p.memory_full_info().pss for p in self._tree()) / MEBIBYTE)

    def _tree(self) -> list[psutil.Process]:
        if self.process.poll() is not None:
            return []
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]


def other(name: str, folder: Path, encoder: str, options: dict[str, Any]) -> Server:
    """A started server of `benchmarks.serving.others`, for requests of `options["each"]` images."""
    port = free_port()
    words = [name, folder, encoder, port, json.dumps(options)]
    command = [sys.executable, "-m", "benchmarks.serving.others", *map(str, words)]
    raw = name == "fastapi" and options["each"] == 1
    server = Server(command, port, path="/predict", part=None if raw else "request")
    server.start()
    return server


def ours(settings: Settings, model_id: str, *, each: int, processes: int) -> Server:
    """The real API, as `fewlabels up --workers N` starts it."""
    settings = settings.model_copy(update={"port": free_port(), "api_processes": processes})
    raw = f"/predict?model={model_id}"
    server = Server(api_command(settings), settings.port, path=raw, part=None)
    if each > 1:
        server.form("files", "/predict", model=model_id)
    server.start(api_environment(settings))
    return server
