"""How fast does the service answer? Beside the runtime alone, LitServe and a plain handler.

The same model, images and preprocessing on the same machine, in turns; the servers whose turn it
is not are stopped (SIGSTOP). One JPEG in each request, as a raw body (for LitServe a form, which is
what it takes files by); then sixteen in each, as a form. Limit: decode in as many threads as there
are cores, then the runtime, batches of 32, in a loop. The clients are a process of their own and
share the cores: how much they take stands beside. Each server is taken with those of its settings
(processes, batches) with which it answers most.

Run with: python -m benchmarks.serving [--seconds 5] [--rounds 2] [--only resnet10]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.cells import versions
from benchmarks.serving.choice import best, servers_of
from benchmarks.serving.model import BATCH, Opened, make_jpegs, make_model, record
from benchmarks.serving.servers import CORES, Server
from core.config import Settings, load_settings
from core.db.migrating import upgrade
from core.db.session import make_engine, session_factory
from core.embedded.servers import start_servers
from core.learning.intraop import use_threads

CASES = {"resnet10@32": ("resnet10", 32, (32, 32)), "resnet18@224": ("resnet18", 224, (500, 375))}
CLIENTS = {1: (1, 8, 32), 16: (1, 2, 4)}  # by images in a request
IMAGES = 64
COLUMNS = ("per_second", "p50", "p95", "p99", "errors", "processor_ms", "client_cores", "megabytes")
Seen = dict[tuple[str, int], list[dict[str, float]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One model with its images, and where its files lie."""

    name: str
    folder: Path
    encoder: str
    images: list[Path]
    model_id: str
    settings: Settings


def limit(opened: Opened, images: list[bytes], seconds: float) -> float:
    """Images a second of the runtime alone, decode counted."""
    done, began = 0, time.perf_counter()
    with ThreadPoolExecutor(CORES, initializer=partial(use_threads, 1)) as pool:
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


def measure(case: Case, each: int, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one model and one number of images in a request."""
    seconds = options.seconds
    contents = [path.read_bytes() for path in case.images]
    tried = servers_of(case.settings, case.folder, case.encoder, model_id=case.model_id, each=each)
    clients = CLIENTS[each][-1]
    opened = Opened(case.folder, case.encoder, threads=CORES)
    torch.set_num_threads(1)
    bounds: list[float] = []
    alone: list[float] = []

    servers: dict[str, Server] = {}
    taken: dict[str, dict[str, Any]] = {}

    def bare() -> None:
        bounds.append(limit(opened, contents, seconds))
        alone.append(lone(as_ours, contents, seconds / 2))

    try:
        for name, ways in tried.items():
            server, taken[name] = best(
                name, ways, case.images, clients=clients, seconds=seconds, each=each
            )
            servers[name] = server
            server.ready(case.images, each)
            server.send(signal.SIGSTOP)
        # A lone image has the threads of one process.
        threads = max(1, CORES // taken["ours"]["processes"])
        as_ours = Opened(case.folder, case.encoder, threads=threads)
        seen = in_turns(servers, case.images, each, options, bare)
    finally:
        for server in servers.values():
            server.end()
    runtime = opened.model.runtime
    return show(
        case.name, each, runtime, seen, (statistics.median(bounds), statistics.median(alone))
    )


def in_turns(
    servers: dict[str, Server],
    images: list[Path],
    each: int,
    options: argparse.Namespace,
    bare: Callable[[], None],
) -> Seen:
    """What clients saw of the servers, by name and clients; a busy moment strikes all alike."""
    seen: Seen = {}
    for _ in range(options.rounds):
        for clients in CLIENTS[each]:
            bare()
            for name, server in servers.items():
                server.send(signal.SIGCONT)
                found = server.ask(images, clients=clients, seconds=options.seconds, each=each)
                server.send(signal.SIGSTOP)
                seen.setdefault((name, clients), []).append(found)
    return seen


def show(
    name: str, each: int, runtime: str, seen: Seen, bare: tuple[float, float]
) -> dict[str, Any]:
    """A table as Markdown; returns what stands in the last JSON object."""
    bound, alone = bare
    print(f"\n{name} by {runtime}, {each} a request: limit {bound:.1f} images/s, ", end="")
    print(f"lone {alone:.2f} ms\n")
    print("| server | clients | images/s | of the limit | p50 | p95 | p99 ms | errors ", end="")
    print(
        "| CPU ms an image | clients' cores | MB |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    middle: dict[tuple[str, int], dict[str, float]] = {}
    for key, rounds in seen.items():
        row = {column: statistics.median(one[column] for one in rounds) for column in COLUMNS}
        row["errors"] = sum(one["errors"] for one in rounds)
        middle[key] = row
        print(
            f"| {key[0]} | {key[1]} | {row['per_second']:.1f} | {row['per_second'] / bound:.2f} | "
            f"{row['p50']:.1f} | {row['p95']:.1f} | {row['p99']:.1f} | {row['errors']:.0f} | "
            f"{row['processor_ms']:.2f} | {row['client_cores']:.2f} | {row['megabytes']:.0f} |",
            flush=True,
        )
    most = {
        server: max(row["per_second"] for (one, _), row in middle.items() if one == server)
        for server in ("ours", "litserve", "fastapi")
    }
    overhead = {"lone_overhead_ms": round(middle["ours", 1]["p50"] - alone, 2)} if each == 1 else {}
    errors = int(sum(row["errors"] for (server, _), row in middle.items() if server == "ours"))
    return {"limit": round(bound, 1), **most, **overhead, "errors": errors}


def run(options: argparse.Namespace, settings: Settings, folder: Path) -> dict[str, Any]:
    """Measure the models; figures by case, those of several images a request beneath."""
    printed: dict[str, Any] = {}
    upgrade(settings.sqlalchemy_url)
    engine = make_engine(settings.sqlalchemy_url)
    for name, (encoder, side, sides) in CASES.items():
        if options.only not in name:
            continue
        images = make_jpegs(folder / name, sides, IMAGES)
        manifest = make_model(folder, encoder, side, images)
        (folder / f"{encoder}.json").write_text(json.dumps(manifest))
        print(f"{name}: {json.dumps(manifest['runtime']['candidates'])}", flush=True)
        with session_factory(engine).begin() as session:
            model_id = str(record(session, manifest))
        case = Case(
            name=name,
            folder=folder,
            encoder=encoder,
            images=images,
            model_id=model_id,
            settings=settings,
        )
        one, many = (measure(case, each, options) for each in CLIENTS)
        printed[name] = {**one, "sixteen_a_request": many}
    engine.dispose()
    return printed


def main() -> None:
    """Measure both models; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    print(f"python -m benchmarks.serving, {CORES} cores, load {os.getloadavg()[0]:.1f}")
    print(", ".join(f"{name} {version}" for name, version in versions().items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="fewlabels-serving-") as name:
        base = load_settings(data_dir=Path(name), device="cpu")
        with start_servers(base) as settings:
            printed = run(options, settings, Path(name))
    print(json.dumps(printed))


if __name__ == "__main__":
    main()
