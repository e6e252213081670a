"""What does it cost that OpenMP's threads sleep while they wait, and what if they spin a little?

A step of training (forward, backward, SGD) in a process of its own, once alone on the machine and
once beside another one of its kind, for each way to wait. libgomp's threads spin for a third of a
second by itself, not at all under OMP_WAIT_POLICY=passive, and GOMP_SPINCOUNT rounds where that is
set. In turns; medians. The processor's time of all steps shows what spinning burns.

Run with: python -m benchmarks.waiting [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import torch

from benchmarks.cells import versions
from core.learning.encoders import create_encoder
from core.learning.runtimes.choice import cpu_name

CASES = {"resnet10_tiny@32": ("resnet10_tiny", 32, 128), "resnet10@32": ("resnet10", 32, 128)}
STEPS = 30
PASSIVE = {"OMP_WAIT_POLICY": "passive"}
WAYS = {
    "spins": {},
    "sleeps": PASSIVE,
    "spins 1,000 rounds": {**PASSIVE, "GOMP_SPINCOUNT": "1000"},
    "spins 10,000 rounds": {**PASSIVE, "GOMP_SPINCOUNT": "10000"},
}
STEP = "step"  # on the command line: be the process that is measured


def step_times() -> dict[str, float]:
    """Median milliseconds of a step by case, and this process's seconds of processor for all."""
    found = {}
    began = time.process_time()
    for name, (encoder, side, batch) in CASES.items():
        torch.manual_seed(0)
        module = create_encoder(encoder, image_size=side, channels=3).train()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
        images_BCHW = torch.randn(batch, 3, side, side)
        taken = []
        for _ in range(STEPS):
            start = time.perf_counter()
            optimizer.zero_grad()
            module(images_BCHW).square().mean().backward()
            optimizer.step()
            taken.append(1000 * (time.perf_counter() - start))
        found[name] = statistics.median(taken)
    return {**found, "processor_s": time.process_time() - began}


def start(way: str) -> subprocess.Popen[str]:
    """A process that measures itself."""
    bare = {k: v for k, v in os.environ.items() if k not in {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}}
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.waiting", STEP],
        env={**bare, **WAYS[way]},
        stdout=subprocess.PIPE,
        text=True,
    )


def measured(way: str, processes: int) -> list[dict[str, float]]:
    """What so many processes at once find."""
    started = [start(way) for _ in range(processes)]
    printed = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"a process of '{way}' failed")
    return [json.loads(text) for text in printed]


def main() -> None:
    """Print a table, and the figures as one JSON object on the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("only", nargs="?", choices=[STEP], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(step_times()))
        return
    print(f"{cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(", ".join(f"{name} {version}" for name, version in versions().items()), flush=True)
    seen: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for way in WAYS:
            for processes in (1, 2):
                seen.setdefault((way, processes), []).extend(measured(way, processes))
    columns = (*CASES, "processor_s")
    print(f"\n| threads that wait | processes | {', ms | '.join(CASES)}, ms | processor, s each |")
    print("|---|---|" + "---|" * len(columns))
    printed: dict[str, dict[str, dict[str, float]]] = {}
    for (way, processes), rounds in seen.items():
        row = {name: round(statistics.median(one[name] for one in rounds), 1) for name in columns}
        printed.setdefault(way, {})[str(processes)] = row
        print(f"| {way} | {processes} | {' | '.join(map(str, row.values()))} |")
    print(json.dumps(printed))


if __name__ == "__main__":
    main()
