"""`make fuzz`: what schemathesis makes up of the OpenAPI document, against the real service.

Run with: python -m tests.fuzz [--examples 50] [--seed 1] [--folder FOLDER]

The last line is JSON: {"operations": …, "cases": …, "failures": 0, "seed": …}. After failures the
exit code is 1, and each has been shown with the curl line that makes it again; for that the
service of the run is gone: `fewlabels up` starts one. A folder that is named is kept, with the
log of the API.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
from pathlib import Path

from tests.fuzz.runs import SHARES, Run, fuzz
from tests.fuzz.service import running_service

WHOLE = "all scopes"


def main() -> int:
    """Parse the arguments, run, and tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=50, help="requests for each operation")
    parser.add_argument("--seed", type=int, default=None, help="a random one unless given")
    parser.add_argument("--folder", type=Path, default=None, help="for data, logs and reports")
    given = parser.parse_args()
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        runs = run_all(given.folder or Path(scratch), examples=given.examples, seed=seed)
    failures = sum(run.failed for run in runs)
    told = {
        "operations": max(run.operations for run in runs),
        "cases": sum(run.cases for run in runs),
        "failures": failures,
        "seed": seed,
    }
    print(json.dumps(told))
    return 1 if failures else 0


def run_all(folder: Path, *, examples: int, seed: int) -> list[Run]:
    """The run of every identity on one service."""
    print(f"seed {seed}, {examples} examples; starting the service", flush=True)
    runs = []
    with running_service(folder / "data") as service:
        for identity in SHARES:
            print(f"{identity}: …", flush=True)
            reports = folder / identity.replace(" ", "-")
            run = fuzz(
                service,
                identity,
                examples=examples,
                seed=seed,
                folder=reports,
                systematic=identity == WHOLE,
            )
            print(
                f"{identity}: {run.operations} operations, {run.cases:,} cases, "
                f"{run.failed} failures, {run.seconds:.0f} s",
                flush=True,
            )
            if run.failed:
                print(run.shown, flush=True)
            runs.append(run)
    return runs


if __name__ == "__main__":
    sys.exit(main())
