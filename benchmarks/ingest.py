"""How fast do images come in? Beside hashing, decoding and writing the same files with no service.

20,000 PNG files of 32 px and 2,000 JPEG files of about a megapixel go to a service with embedded
servers, as one archive and through `fewlabels upload`; the limit reads, hashes, decodes and writes
them in as many threads as there are cores, with no HTTP, no database and no flush to the disk.

Run with: python -m benchmarks.ingest [--scale 0.1]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.cells import versions
from benchmarks.made_up import photograph
from core.client import ServiceClient, ServiceRefused
from core.images.decoding import decode

KINDS = {"small_png": (20_000, "png"), "jpeg_1mp": (2_000, "jpg")}
MEGAPIXEL = (1152, 864)
SMALL = (32, 32)
START_SECONDS = 120.0
FIRST = 100  # images of an upload that is not measured: it starts the decoding processes
RESTING = 0.1  # seconds of processor time in a second of a service that does nothing
MEBIBYTE = 2**20


def make_files(folder: Path, kind: str, count: int) -> int:
    """Write so many different images; returns their bytes in number."""
    suffix = KINDS[kind][1]
    size = SMALL if kind == "small_png" else MEGAPIXEL
    random = np.random.default_rng(0)
    total = 0
    for number in range(count):
        place = folder / f"{number % 10}"
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{number}.{suffix}"
        photograph(random, size).save(path, quality=90)  # which PNG does not look at
        total += path.stat().st_size
    return total


def limit(paths: list[Path], out: Path) -> float:
    """Seconds to read, hash, decode and write the files with no service."""
    out.mkdir()

    def keep(path: Path) -> None:
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        decode(data, max_bytes=2**25, max_pixels=5 * 10**7)
        (out / digest).write_bytes(data)

    began = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(keep, paths))
    return time.perf_counter() - began


class Peak:
    """The most memory that a process and its children have had while the block ran."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._stop = threading.Event()
        self.before = self.most = self._now()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _now(self) -> int:
        return int(self._process.memory_info().rss)

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.most = max(self.most, self._now())


@contextmanager
def service(folder: Path) -> Iterator[tuple[str, int]]:
    """A running service: its URL and the process id of its API."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["up", "--data-dir", str(folder), "--port", str(port)]
    command = [sys.executable, "-m", "core.cli", *words]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        api = _api_process(process, port, url)
        _settle(process.pid)
        yield url, api
    finally:
        process.terminate()
        process.wait(60)


def _api_process(process: subprocess.Popen[bytes], port: int, url: str) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            words = _words(child)
            if "uvicorn" in words and str(port) in words:
                with ServiceClient(url) as client:
                    try:
                        client.ensure_dataset("warm-up")
                    except ServiceRefused:
                        break
                return child.pid
        time.sleep(0.2)
    raise SystemExit("the service did not start")


def _settle(pid: int) -> None:
    """Wait while the service still starts: a worker loads its libraries for seconds."""
    deadline = time.monotonic() + START_SECONDS
    before, still = _processor_seconds(pid), 0
    while still < 2 and time.monotonic() < deadline:
        time.sleep(1)
        now = _processor_seconds(pid)
        still = still + 1 if now - before < RESTING else 0
        before = now


def _processor_seconds(pid: int) -> float:
    top = psutil.Process(pid)
    used = 0.0
    for process in (top, *top.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:  # it has ended meanwhile
            continue
        used += times.user + times.system
    return used


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended meanwhile
        return []


def by_archive(url: str, folder: Path, scratch: Path, name: str) -> float:
    """Seconds from the first byte of one tar archive to the answer."""
    archive = scratch / f"{name}.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, arcname=".")
    with ServiceClient(url) as client, archive.open("rb") as stream:
        dataset_id = client.ensure_dataset(f"{name}-archive")
        pieces = iter(lambda: stream.read(MEBIBYTE), b"")
        began = time.perf_counter()
        client.upload_tar(dataset_id, pieces)
        seconds = time.perf_counter() - began
    archive.unlink()
    return seconds


def by_command(url: str, folder: Path, _: Path, name: str) -> float:
    """Seconds of `fewlabels upload`, its start included."""
    words = ["upload", str(folder), "--dataset", f"{name}-upload", "--url", url]
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "core.entry", *words], check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - began


WAYS: dict[str, Callable[[str, Path, Path, str], float]] = {
    "archive": by_archive,
    "upload": by_command,
}


def measure(kind: str, count: int, scratch: Path, url: str, pid: int) -> tuple[dict[str, Any], int]:
    """Ratios of the ways to the limit, and the growth of the API's memory in bytes."""
    folder = scratch / kind
    size = make_files(folder, kind, count)
    paths = sorted(folder.rglob("*.*"))
    print(f"{kind}: {count:,} files, {size / 10**6:,.0f} MB", flush=True)
    found: dict[str, Any] = {}
    growth = 0
    for way, send in WAYS.items():
        # The limit before each way: the machine is shared.
        bound = limit(paths, scratch / f"{kind}-{way}-limit")
        with Peak(pid) as peak:
            seconds = send(url, folder, scratch, kind)
        growth = max(growth, peak.most - peak.before)
        found[way] = round(bound / seconds, 3)
        print(
            f"  {way:8s} {count / seconds:7,.0f} images/s, {size / seconds / 10**6:6.1f} MB/s; "
            f"limit {count / bound:7,.0f} images/s; ratio {found[way]:.2f}; "
            f"API memory +{(peak.most - peak.before) / MEBIBYTE:.0f} MB",
            flush=True,
        )
    return found, growth


def main() -> None:
    """Measure both kinds of files in both ways, print a line each and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the files")
    options = parser.parse_args()
    print(f"python -m benchmarks.ingest --scale {options.scale:g}")
    print(", ".join(f"{name} {version}" for name, version in versions().items()), flush=True)
    printed: dict[str, Any] = {}
    most = 0
    with tempfile.TemporaryDirectory(prefix="fewlabels-ingest-") as name:
        scratch = Path(name)
        with service(scratch / "data") as (url, pid):
            make_files(scratch / "first", "small_png", FIRST)
            by_archive(url, scratch / "first", scratch, "first")
            for kind, (count, _) in KINDS.items():
                files = max(1, round(count * options.scale))
                printed[kind], growth = measure(kind, files, scratch, url, pid)
                most = max(most, growth)
    printed["peak_growth_mb"] = round(most / MEBIBYTE)
    print(json.dumps(printed))


if __name__ == "__main__":
    main()
