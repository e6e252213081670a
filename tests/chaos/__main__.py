"""`make chaos`: hundreds of small real jobs while everything they run on is killed and cut.

Run with: python -m tests.chaos [--jobs 200] [--seed 1] [--folder FOLDER]

First one job of each kind runs undisturbed. Then jobs are ordered over HTTP while processes are
killed, stopped, restarted and disconnected at random times, and jobs are cancelled and retried. In
the end each accepted job has ended in one state that it may have ended in, with one model or one
reason; weights and metrics are those of the undisturbed run, bit by bit; no bytes are left over.
The last line is JSON: {"seed": …, "jobs": …, "kills": …, "violations": 0, …}; the exit code is 1
when a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.mischief import Mischief
from tests.chaos.orders import KINDS, Client
from tests.chaos.stack import Stack, running_stack
from tests.chaos.verdict import Run, attempts_of, run_of, settled, violations

SHOWN = 30
MOST_WAITING = 12  # so that mischief meets jobs of all ages
LEFT_IN_PEACE = 2
SHORTEST, LONGEST = 1.0, 6.0  # seconds between two deeds


def main() -> int:
    """Parse the arguments, run, and tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=200, help="at least so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=None, help="for data and logs; kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        folder = given.folder or Path(scratch)
        told, broken = chaos(folder / "data", jobs=given.jobs, seed=given.seed, say=say)
    for line in broken[:SHOWN]:
        say(line)
    print(json.dumps(told))
    return 1 if broken else 0


def chaos(
    folder: Path,
    *,
    jobs: int,
    seed: int,
    say: Callable[[str], None],
    kinds: tuple[str, ...] = tuple(KINDS),
    script: Sequence[str] = (),
) -> tuple[dict[str, Any], list[str]]:
    """Run it: what happened, and the promises that were broken."""
    began = time.monotonic()
    with running_stack(folder) as stack:
        client = Client(stack.url, seed, kinds=kinds)
        try:
            client.upload()
            undisturbed, broken = _undisturbed(stack, client, say)
            mischief = Mischief(stack, client, seed, script=script)
            _disturb(stack, client, mischief, jobs=jobs, seed=seed, say=say)
            broken += settled(stack, client.ordered, say)
            broken += violations(stack, client.ordered, undisturbed)
            attempts = attempts_of(stack, client.ordered)
        finally:
            client.close()
    told = {
        "seed": seed,
        "jobs": len(client.ordered),
        "kills": mischief.kills,
        "violations": len(broken),
        "deeds": dict(sorted(mischief.done.items())),
        "attempts": attempts,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    return told, broken


def _undisturbed(
    stack: Stack, client: Client, say: Callable[[str], None]
) -> tuple[dict[str, Run], list[str]]:
    """What one job of each kind makes when nothing happens to it."""
    say("one job of each kind, undisturbed")
    for kind in client.kinds:
        made = client.order(kind)
        if broken := settled(stack, made, say):
            return {}, broken
        if kind == "pretrain":
            client.encoder_id = client.ask("GET", f"/jobs/{made[0].job_id}")["model_id"]
    with stack.sessions.begin() as session:
        return {one.kind: run_of(session, one.job_id) for one in client.ordered}, []


def _disturb(
    stack: Stack,
    client: Client,
    mischief: Mischief,
    *,
    jobs: int,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Order jobs, never too many at a time, until there are enough, and do harm all along."""
    chance = random.Random(f"pauses {seed}")
    jobs += len(client.ordered)
    shown = 0
    while len(client.ordered) < jobs or client.unfinished() > LEFT_IN_PEACE or mischief.has_plans():
        while len(client.ordered) < jobs and client.unfinished() < MOST_WAITING:
            client.order_one()
        said = mischief.step()
        if len(client.ordered) >= shown + 10:
            shown = len(client.ordered)
            say(f"{shown} jobs ordered, {client.unfinished()} unfinished, {mischief.kills} kills")
        time.sleep(chance.uniform(SHORTEST, LONGEST) if said != "nothing" else SHORTEST)
    mischief.end()


def say(line: str) -> None:
    """A line for whoever watches."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
