"""`make soak`: the API at twice its capacity, with bad images, callers that leave, and swaps.

Run with: python -m tests.soak [--seconds 600] [--seed 1] [--processes 2] [--folder FOLDER]

Every request must be answered: by what the model says of each image alone, an error for a bad
image, 429 or 504; by the model that the alias points to, or did within the second before the
request was sent. The last line is JSON: {"requests": …, "hung": 0, "wrong": 0, "growth_mb": …}
and more; the exit code is 1 when something hung, was wrong, or memory grew by more than GROWN_MB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import httpx2

from tests.soak.load import HUNG_SECONDS, OVERLOAD, SHOWN, Load
from tests.soak.requests import TOLERANCE
from tests.soak.service import is_ready, running_service

GROWN_MB = 100.0
MEASURED_SECONDS = 5.0


def main() -> int:
    """Parse the arguments, run, and tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long under load")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="of the API")
    parser.add_argument("--folder", type=Path, default=None, help="for data and logs; kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        folder = given.folder or Path(scratch)
        chosen = {"seconds": given.seconds, "seed": given.seed, "processes": given.processes}
        work = soak(folder / "data", **chosen, say=say)
        told, faults = asyncio.run(work)
    for fault in faults[:SHOWN]:
        say(fault)
    print(json.dumps(told))
    return 1 if told["hung"] or faults or told["growth_mb"] > GROWN_MB else 0


async def soak(
    folder: Path,
    *,
    seconds: float,
    seed: int,
    say: Callable[[str], None],
    processes: int = 1,
    measured_seconds: float = MEASURED_SECONDS,
) -> tuple[dict[str, float], list[str]]:
    """Start the service and load it: what became of the requests, and what was wrong.

    Its capacity is measured for `measured_seconds` before, after as long to warm up.
    """
    say("starting the service")
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
    timeout = httpx2.Timeout(2 * HUNG_SECONDS)
    with running_service(folder, processes=processes) as service:
        async with httpx2.AsyncClient(
            base_url=service.url, limits=limits, timeout=timeout
        ) as client:
            load = Load(service, client, seed)
            await load.learn()
            apart = load.told_apart()
            say(f"answers lie {apart:.4f} apart or more, {TOLERANCE} is taken for equal")
            if apart < 3 * TOLERANCE:
                raise SystemExit("the models do not tell the pictures apart: a mix would not show")
            capacity = await load.capacity(measured_seconds)
            say(f"{capacity:.0f} requests a second at most; now {OVERLOAD:g} times as many")
            await load.run(rate=OVERLOAD * capacity, seconds=seconds, tell=say)
        tally = load.tally
        if not is_ready(service.url):
            tally.faults.append("/readyz is red at the end")
    told = {
        "requests": tally.outcomes.total(),
        "hung": tally.outcomes["hung"],
        "wrong": len(tally.faults),
        "growth_mb": round(tally.growth_mb(), 1),
        **{name: tally.outcomes[name] for name in ("200", "422", "429", "504", "left")},
        "followed_within_s": round(load.followed_within(), 2),
        "capacity_per_second": round(capacity, 1),
    }
    return told, tally.faults


def say(line: str) -> None:
    """A line for whoever watches."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
