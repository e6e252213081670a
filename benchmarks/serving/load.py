"""Clients that ask one after another over kept connections, with as little work as can be.

They share the cores with what they measure, so requests are made beforehand and answers are not
parsed beyond their status and length.

Run with: python -m benchmarks.serving.load PORT CLIENTS SECONDS FOLDER
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import uvloop

WARM_UP_SECONDS = 1.0


@dataclass
class Seen:
    """What the clients saw after the warm-up."""

    milliseconds: list[float] = field(default_factory=list)
    errors: int = 0


async def ask(port: int, requests: list[bytes], number: int, begin: float, end: float) -> Seen:
    """One client, until the end."""
    seen = Seen()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    turns = cycle(requests[number % len(requests) :] + requests[: number % len(requests)])
    while (now := time.perf_counter()) < end:
        writer.write(next(turns))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        if now < begin:
            continue
        seen.milliseconds.append((time.perf_counter() - now) * 1000)
        seen.errors += head.split(b" ", 2)[1] != b"200"
    writer.close()
    return seen


async def run(port: int, clients: int, seconds: float, folder: Path) -> dict[str, float]:
    """Answers a second and percentiles of the time to the answer."""
    requests = [path.read_bytes() for path in sorted(folder.iterdir())]
    begin = time.perf_counter() + WARM_UP_SECONDS
    end = begin + seconds
    all_seen = await asyncio.gather(
        *(ask(port, requests, number, begin, end) for number in range(clients))
    )
    times = sorted(ms for seen in all_seen for ms in seen.milliseconds)
    took = time.perf_counter() - begin

    def percentile(share: float) -> float:
        return round(times[min(len(times) - 1, int(share * len(times)))], 2)

    return {
        "per_second": round(len(times) / took, 1),
        "p50": percentile(0.5),
        "p95": percentile(0.95),
        "p99": percentile(0.99),
        "errors": sum(seen.errors for seen in all_seen),
    }


def main() -> None:
    """Print one JSON object."""
    port, clients, seconds, folder = sys.argv[1:]
    work = run(int(port), int(clients), float(seconds), Path(folder))
    print(json.dumps(uvloop.run(work)))


if __name__ == "__main__":
    main()
