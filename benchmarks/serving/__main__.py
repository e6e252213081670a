"""How fast does the service answer? Beside the runtime alone, LitServe and a plain handler.

The same model, images and preprocessing on the same machine, in turns; the servers whose turn it
is not are stopped (SIGSTOP). One JPEG in each request: a raw body, for LitServe a form, which is
what it takes files by. Limit: decode in as many threads as there are cores, then the runtime,
batches of 32, in a loop. The clients are a process of their own and share the cores.

Run with: python -m benchmarks.serving [--seconds 5] [--rounds 2] [--only resnet10]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.cells import versions
from benchmarks.serving.model import BATCH, Opened, make_jpegs, make_model, record
from core.config import Settings, child_environment, load_settings
from core.db.session import make_engine, session_factory, upgrade
from core.embedded.commands import api_command
from core.embedded.servers import start_servers
from core.embedded.valkey import free_port

CASES = {"resnet10@32": ("resnet10", 32, (32, 32)), "resnet18@224": ("resnet18", 224, (500, 375))}
CLIENTS = (1, 8, 32)
CORES = os.cpu_count() or 1
MEBIBYTE = 2**20
START_SECONDS = 120.0
LITSERVE = [
    {"batch": batch, "timeout": timeout, "workers": workers, "fast_queue": fast}
    for batch, timeout, workers, fast in (
        (1, 0.0, 1, False),
        (32, 0.0, 1, False),
        (32, 0.005, 1, False),
        (32, 0.0, CORES, False),
    )
]


class Server:
    """A server in a process of its own, stopped unless it is asked."""

    def __init__(self, command: list[str], port: int, path: str, kind: str, **more: Any) -> None:
        self.port, self.path, self.kind = port, path, kind
        log = Path(tempfile.gettempdir(), f"fewlabels-bench-{port}.log").open("wb")  # noqa: SIM115
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, **more)

    def ready(self, image: Path) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(subprocess.CalledProcessError, ConnectionError):
                if self.ask([image], 1, 0.2)["errors"] == 0:
                    return
            time.sleep(0.5)
        raise SystemExit(f"not started: {self.process.args}")

    def ask(self, images: list[Path], clients: int, seconds: float) -> dict[str, Any]:
        """What clients see of it."""
        words = [self.port, self.path, clients, seconds, self.kind, *images]
        command = [sys.executable, "-m", "benchmarks.serving.load", *map(str, words)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return {**found, "megabytes": self.megabytes()}

    def megabytes(self) -> int:
        """Memory of its own, shared pages counted in parts."""
        return round(sum(p.memory_full_info().pss for p in self._tree()) / MEBIBYTE)

    def send(self, number: int) -> None:
        """Send a signal to all of its processes."""
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def end(self) -> None:
        """Kill it."""
        self.send(signal.SIGKILL)
        self.process.wait()

    def _tree(self) -> list[psutil.Process]:
        if self.process.poll() is not None:
            return []
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]


def limit(opened: Opened, images: list[bytes], seconds: float) -> float:
    """Images a second of the runtime alone, decode counted."""
    done, began = 0, time.perf_counter()
    with ThreadPoolExecutor(CORES, initializer=partial(torch.set_num_threads, 1)) as pool:
        while time.perf_counter() - began < seconds:
            batch = [images[(done + row) % len(images)] for row in range(BATCH)]
            opened.forward(list(pool.map(opened.canvas, batch)))
            done += BATCH
    return done / (time.perf_counter() - began)


def lone(opened: Opened, images: list[bytes], seconds: float) -> float:
    """The median of milliseconds to decode and answer one image, with nothing around it."""
    times, began = [], time.perf_counter()
    while (start := time.perf_counter()) - began < seconds:
        opened.forward([opened.canvas(images[len(times) % len(images)])])
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def other(name: str, folder: Path, encoder: str, options: dict[str, Any] | None = None) -> Server:
    """A server of `benchmarks.serving.others`."""
    port = free_port()
    words = [name, folder, encoder, port, *([json.dumps(options)] if options else [])]
    command = [sys.executable, "-m", "benchmarks.serving.others", *map(str, words)]
    return Server(command, port, "/predict", "form" if name == "litserve" else "image/jpeg")


def best_litserve(folder: Path, encoder: str, images: list[Path], seconds: float) -> dict[str, Any]:
    """The settings with which LitServe answers most at 32 clients."""
    found = []
    for options in LITSERVE:
        server = other("litserve", folder, encoder, options)
        try:
            server.ready(images[0])
            found.append((server.ask(images, CLIENTS[-1], seconds)["per_second"], options))
        finally:
            server.end()
        print(f"  litserve {options}: {found[-1][0]} images/s", flush=True)
    return max(found, key=lambda pair: float(pair[0]))[1]


@contextmanager
def ours(settings: Settings, model_id: str) -> Iterator[Server]:
    """The real API, in one process."""
    settings = settings.model_copy(update={"port": free_port()})
    environment = child_environment(settings)
    path = f"/predict?model={model_id}"
    command = api_command(settings)
    server = Server(command, settings.port, path, "image/jpeg", env=environment)
    try:
        yield server
    finally:
        server.end()


def measure(
    case: str, folder: Path, settings: Settings, model_id: str, options: argparse.Namespace
) -> dict[str, Any]:
    """All figures of one model."""
    encoder, _, sides = CASES[case]
    images = make_jpegs(folder / case, sides, 64)
    contents = [path.read_bytes() for path in images]
    seconds = options.seconds
    settings_found = best_litserve(folder, encoder, images, seconds)
    opened = Opened(folder, encoder, threads=CORES)
    torch.set_num_threads(1)
    seen: dict[tuple[str, int], list[dict[str, Any]]] = {}
    limits, lones = [], []
    with ours(settings, model_id) as mine:
        servers = {
            "ours": mine,
            "litserve": other("litserve", folder, encoder, settings_found),
            "fastapi": other("fastapi", folder, encoder),
        }
        try:
            for server in servers.values():
                server.ready(images[0])
                server.send(signal.SIGSTOP)
            for _ in range(options.rounds):
                lones.append(lone(opened, contents, seconds / 2))
                for clients in CLIENTS:
                    limits.append(limit(opened, contents, seconds))
                    for name, server in servers.items():
                        server.send(signal.SIGCONT)
                        found = server.ask(images, clients, seconds)
                        server.send(signal.SIGSTOP)
                        seen.setdefault((name, clients), []).append(found)
        finally:
            for server in servers.values():
                server.end()
    return show(case, opened.model.runtime, seen, limits, lones)


def show(
    case: str,
    runtime: str,
    seen: dict[tuple[str, int], list[dict[str, Any]]],
    limits: list[float],
    lones: list[float],
) -> dict[str, Any]:
    """A table as Markdown; returns the line of the last JSON object."""
    bound, alone = statistics.median(limits), statistics.median(lones)
    print(f"\n{case} by {runtime}: limit {bound:.1f} images/s, lone {alone:.2f} ms\n")
    print("| server | clients | images/s | of the limit | p50 | p95 | p99 ms | errors | MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    middle: dict[tuple[str, int], dict[str, float]] = {}
    for key, rounds in seen.items():
        row = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
        row["errors"] = sum(one["errors"] for one in rounds)
        middle[key] = row
        print(
            f"| {key[0]} | {key[1]} | {row['per_second']:.1f} | {row['per_second'] / bound:.2f} | "
            f"{row['p50']:.1f} | {row['p95']:.1f} | {row['p99']:.1f} | {row['errors']:.0f} | "
            f"{row['megabytes']:.0f} |"
        )
    best = {
        name: max(middle[name, clients]["per_second"] for clients in CLIENTS)
        for name in ("ours", "litserve", "fastapi")
    }
    return {
        "limit": round(bound, 1),
        **best,
        "lone_overhead_ms": round(middle["ours", 1]["p50"] - alone, 2),
        "errors": int(sum(row["errors"] for key, row in middle.items() if key[0] == "ours")),
    }


def main() -> None:
    """Measure both models; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    print(f"python -m benchmarks.serving, {CORES} cores, load {os.getloadavg()[0]:.1f}")
    print(", ".join(f"{name} {version}" for name, version in versions().items()), flush=True)
    printed: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="fewlabels-serving-") as name:
        folder = Path(name)
        base = load_settings(data_dir=folder, device="cpu")
        with start_servers(base) as settings:
            upgrade(settings.sqlalchemy_url)
            engine = make_engine(settings.sqlalchemy_url)
            for case, (encoder, side, sides) in CASES.items():
                if options.only not in case:
                    continue
                manifest = make_model(folder, encoder, side, make_jpegs(folder / case, sides, 64))
                (folder / f"{encoder}.json").write_text(json.dumps(manifest))
                print(f"{case}: {json.dumps(manifest['runtime']['candidates'])}", flush=True)
                with session_factory(engine).begin() as session:
                    model_id = str(record(session, manifest))
                printed[case] = measure(case, folder, settings, model_id, options)
            engine.dispose()
    print(json.dumps(printed))


if __name__ == "__main__":
    main()
