"""Runs of schemathesis over the whole OpenAPI document, one for each identity."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from tests.fuzz.service import Service

CONFIG = Path(__file__).with_name("schemathesis.toml")
HOOKS = "tests.fuzz.bodies"
DATASET_VARIABLE = "FUZZ_DATASET_ID"
ROOT = Path(__file__).parents[2]
# At the door there is less to find: the share of the examples by identity.
SHARES = {"all scopes": 1.0, "a narrower key": 0.3, "no key": 0.2}
# What is made up by chance. `coverage` goes systematically through all limits of the schemas, which
# takes its time, however few the examples are: once is enough.
BY_CHANCE = "examples,fuzzing,stateful"
TAIL = 4000
LONGEST_LINE = 4000


@dataclass(frozen=True, slots=True)
class Run:
    """What schemathesis did and found as one identity."""

    identity: str
    operations: int
    cases: int
    failed: int
    """Different failures, and errors of the run itself."""
    seconds: float
    output: str = field(repr=False)

    @property
    def shown(self) -> str:
        """What failed, with the curl lines; of bodies of megabytes the beginning."""
        starts = [self.output.find(f"= {part} =") for part in ("ERRORS", "FAILURES")]
        start = min((start for start in starts if start >= 0), default=0)
        return "\n".join(line[:LONGEST_LINE] for line in self.output[start:].splitlines())


def fuzz(
    service: Service,
    identity: str,
    *,
    examples: int,
    seed: int,
    folder: Path,
    systematic: bool = False,
) -> Run:
    """Send what schemathesis makes up: up to so many requests, times the identity's share, each.

    Args:
        service: Runs.
        identity: One of `SHARES`.
        examples: For each operation, and as many chains of operations.
        seed: The same one sends the same, as far as the answers are the same.
        folder: Gets the report and the output.
        systematic: Go through the limits of all schemas as well.

    Raises:
        RuntimeError: schemathesis did not come to its end.
    """
    folder.mkdir(parents=True)
    config = folder / CONFIG.name
    config.write_text(Template(CONFIG.read_text()).substitute(service.known))
    report = folder / "report.json"
    count = max(1, round(examples * SHARES[identity]))
    lengths = ["--max-examples", str(count), "--seed", str(seed)]
    lengths += [] if systematic else ["--phases", BY_CHANCE]
    reports = ["--report-json-path", str(report), "--report-dir", str(folder), "--no-color"]
    key = service.keys[identity]
    # The key of a service that ends with this run: no matter that arguments can be seen.
    header = ["--header", f"Authorization: Bearer {key}"] if key else []
    run = ["run", f"{service.url}/openapi.json", *lengths, *reports, *header]
    began = time.monotonic()
    code, output = _schemathesis(["--config-file", str(config), *run], service, folder)
    if code not in {0, 1} or not report.exists():
        raise RuntimeError(f"schemathesis ended with {code}: {output[-TAIL:]}")
    told = json.loads(report.read_text())
    failed = told["test_cases"]["unique_failures"] + sum(one["count"] for one in told["errors"])
    if bool(failed) != bool(code):
        raise RuntimeError(f"schemathesis failed without a failure: {output[-TAIL:]}")
    return Run(
        identity=identity,
        operations=told["operations"]["tested"],
        cases=told["test_cases"]["generated"],
        failed=failed,
        seconds=time.monotonic() - began,
        output=output,
    )


def _schemathesis(arguments: list[str], service: Service, folder: Path) -> tuple[int, str]:
    """Its exit code, and what it said, which is kept in the folder as well."""
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *arguments],
        cwd=folder,
        env=_environment(service),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    output = done.stdout.decode(errors="replace")
    (folder / "output.txt").write_text(output)
    return done.returncode, output


def _environment(service: Service) -> dict[str, str]:
    """This process's, with the bodies that schemathesis loads and what they name."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    known = {DATASET_VARIABLE: service.known["dataset_id"]}
    return {**os.environ, **known, "PYTHONPATH": paths, "SCHEMATHESIS_HOOKS": HOOKS}
