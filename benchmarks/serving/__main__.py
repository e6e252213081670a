"""Images a second and milliseconds to an answer: ours, LitServe, a plain FastAPI handler.

A service with embedded servers trains two small classifiers; then the same weights and the same
preprocessing answer behind each server, one image a request, at 1, 8 and 32 clients, in turns.
The limit is decoding and forward passes in a loop, in batches of 32, with no server. Servers and
clients share the cores of the machine, the loop has them alone.

Run with: python -m benchmarks.serving [--seconds 5] [--rounds 2]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import httpx2
import psutil

from benchmarks.cells import versions
from benchmarks.ingest import service
from benchmarks.serving.models import KINDS, Kind, hand_over, pictures, train

CLIENTS = (1, 8, 32)
# LitServe's waiting times; the best one counts.
TIMEOUTS = ("0.0", "0.005", "0.02")
START_SECONDS = 90.0
BOUNDARY = "benchmark-boundary"
Figures = dict[str, float]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def write_requests(folder: Path, files: list[bytes], path: str, *, form: bool) -> None:
    """Requests as they go over the line."""
    folder.mkdir()
    for number, data in enumerate(files):
        media = "image/jpeg"
        if form:
            media = f"multipart/form-data; boundary={BOUNDARY}"
            head = 'Content-Disposition: form-data; name="file"; filename="a.jpg"'
            start = f"--{BOUNDARY}\r\n{head}\r\nContent-Type: image/jpeg\r\n\r\n"
            data = start.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
        lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {media}"]
        lines.append(f"Content-Length: {len(data)}")
        request = "\r\n".join(lines).encode() + b"\r\n\r\n" + data
        (folder / f"{number:03d}").write_bytes(request)


@contextmanager
def peer(kind: str, folder: Path, *words: str) -> Iterator[tuple[int, int]]:
    """A peer that answers: its port and process."""
    port = free_port()
    module = {"fastapi": ["peers", "fastapi"], "litserve": ["through_litserve"]}[kind]
    command = [sys.executable, "-m", f"benchmarks.serving.{module[0]}", *module[1:]]
    command += [str(folder), str(port)]
    log = (folder / "peer.log").open("ab")
    process = subprocess.Popen([*command, *words], stdout=log, stderr=log)
    try:
        _wait_until_it_answers(process, port, folder)
        yield port, process.pid
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.wait()
        log.close()


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    image = next((folder / "images").iterdir()).read_bytes()
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for words in ({"content": image}, {"files": {"file": ("a.jpg", image)}}):
            try:
                url = f"http://127.0.0.1:{port}/predict"
                if httpx2.post(url, timeout=10, **words).is_success:  # type: ignore[arg-type]
                    return
            except httpx2.TransportError:
                time.sleep(0.2)
    said = (folder / "peer.log").read_text()[-2000:]
    raise SystemExit(f"a peer does not answer: {said}")


def load(port: int, clients: int, seconds: float, requests: Path) -> Figures:
    """What so many clients see."""
    words = [str(port), str(clients), str(seconds), str(requests)]
    command = [sys.executable, "-m", "benchmarks.serving.load", *words]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    seen: Figures = json.loads(found.stdout)
    return seen


def memory(pid: int) -> float:
    """Megabytes of a process and its children."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(process.memory_info().rss for process in family) / 2**20


def bare(folder: Path, seconds: float) -> Figures:
    """The loop without a server."""
    command = [sys.executable, "-m", "benchmarks.serving.peers", "bare", str(folder), str(seconds)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    seen: Figures = json.loads(found.stdout)
    return seen


class Measured:
    """All rounds of one kind of model."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], list[Figures]] = defaultdict(list)
        self.memory: dict[str, float] = {}
        self.limits: list[Figures] = []

    def of(self, who: str, clients: int, what: str) -> float:
        """The median over the rounds."""
        return statistics.median(figures[what] for figures in self.rows[who, clients])

    def limit(self, what: str) -> float:
        """The median over the rounds."""
        return statistics.median(figures[what] for figures in self.limits)

    def best(self, who: str) -> float:
        """Images a second at the number of clients that suits it."""
        return max(self.of(who, clients, "per_second") for clients in CLIENTS)

    def names(self) -> list[str]:
        """Who was measured."""
        return list(dict.fromkeys(who for who, _ in self.rows))

    def errors(self, who: str) -> int:
        """Answers that were none."""
        seen = (figures for (name, _), rows in self.rows.items() if name == who for figures in rows)
        return int(sum(figures["errors"] for figures in seen))


def measure(kind: Kind, url: str, pid: int, scratch: Path, options: argparse.Namespace) -> Measured:
    """All servers in turns, as often as there are rounds."""
    files = pictures(kind)
    model_id = train(url, kind, files)
    folder = scratch / kind.name
    hand_over(url, model_id, (scratch / "data" / "blobs").as_uri(), files, folder)
    write_requests(folder / "raw", files, "/predict", form=False)
    write_requests(folder / "form", files, "/predict", form=True)
    write_requests(folder / "ours", files, f"/predict?model={model_id}", form=False)
    measured = Measured()
    port = int(url.rpartition(":")[2])

    def ask(who: str, at: int, process: int, requests: str) -> None:
        for clients in CLIENTS:
            figures = load(at, clients, options.seconds, folder / requests)
            measured.rows[who, clients].append(figures)
        measured.memory[who] = memory(process)

    for number in range(options.rounds):
        measured.limits.append(bare(folder, options.seconds))
        ask("ours", port, pid, "ours")
        with peer("fastapi", folder) as (at, process):
            ask("fastapi", at, process, "raw")
        for timeout in TIMEOUTS:
            with peer("litserve", folder, timeout) as (at, process):
                ask(f"litserve, {timeout} s", at, process, "form")
        print(f"{kind.name}: round {number + 1} of {options.rounds}", flush=True)
    return measured


def show(kind: Kind, measured: Measured) -> None:
    """The table as Markdown."""
    limit = measured.limit("per_second")
    print(f"\n{kind.name}: limit {limit:,.0f} images/s; alone {measured.limit('p50'):.2f} ms")
    print(
        "| server | clients | images/s | share of the limit | p50 | p95 | p99 | errors | memory |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for who in measured.names():
        for clients in CLIENTS:
            rate = measured.of(who, clients, "per_second")
            times = [f"{measured.of(who, clients, what):.1f} ms" for what in ("p50", "p95", "p99")]
            print(
                f"| {who} | {clients} | {rate:,.0f} | {rate / limit:.2f} | {' | '.join(times)} "
                f"| {measured.of(who, clients, 'errors'):.0f} | {measured.memory[who]:.0f} MB |"
            )


def summary(measured: Measured) -> dict[str, float]:
    """The figures that are aimed at."""
    peers = [name for name in measured.names() if name.startswith("litserve")]
    lone = measured.of("ours", 1, "p50") - measured.limit("p50")
    return {
        "limit": measured.limit("per_second"),
        "ours": measured.best("ours"),
        "litserve": max(measured.best(name) for name in peers),
        "fastapi": measured.best("fastapi"),
        "lone_overhead_ms": round(lone, 2),
        "errors": measured.errors("ours"),
    }


def main() -> None:
    """Measure both kinds, print the tables and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=[kind.name for kind in KINDS], action="append")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ["FEWLABELS_REQUESTS_PER_SECOND"] = "0"  # the limit of a key is not what is measured
    found = {**versions(), "litserve": version("litserve"), "uvicorn": version("uvicorn")}
    print(f"python -m benchmarks.serving; {', '.join(f'{k} {v}' for k, v in found.items())}")
    printed = {}
    with tempfile.TemporaryDirectory(prefix="fewlabels-serving-") as name:
        scratch = Path(name)
        with service(scratch / "data") as (url, pid):
            for kind in KINDS:
                if options.only and kind.name not in options.only:
                    continue
                measured = measure(kind, url, pid, scratch, options)
                show(kind, measured)
                printed[kind.name] = summary(measured)
    print(json.dumps(printed))


if __name__ == "__main__":
    main()
