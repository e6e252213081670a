"""`fewlabels doctor`: all checks, a line each, and an exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from core.config import Settings, load_settings
from core.doctor.finding import Check, Finding
from core.doctor.machine import check_device, check_disk, check_memory, check_names, check_versions
from core.doctor.servers import check_blobs, check_broker, check_database
from core.errors import ConfigurationInvalid

CHECKS: tuple[Check, ...] = (
    check_names,
    check_versions,
    check_database,
    check_broker,
    check_blobs,
    check_disk,
    check_memory,
    check_device,
)
STYLES = {"ok": "green", "warning": "yellow", "failure": "bold red", "skipped": "dim"}


def doctor(
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for servers, images and models.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check servers, clock, disk, memory, device and versions, and say what to do.

    Exit code: 0 nothing is broken, 1 something is.
    """
    out = Console(soft_wrap=True, highlight=False)
    findings = []
    for finding in examine(data_dir):
        findings.append(finding)
        if not as_json:
            _show(out, finding)
    if as_json:
        out.print(json.dumps([asdict(finding) for finding in findings]), markup=False)
    raise typer.Exit(int(any(finding.level == "failure" for finding in findings)))


def examine(data_dir: Path | None) -> Iterator[Finding]:
    """What all checks find, as they find it; wrong settings are a finding too."""
    try:
        settings: Settings = load_settings(data_dir=data_dir)
    except ConfigurationInvalid as error:
        remedy = "mend the environment or the .env file; .env.example describes each setting"
        yield Finding("settings", "failure", str(error), remedy)
        return
    for check in CHECKS:
        try:
            yield from check(settings)
        except ConfigurationInvalid as error:
            name = check.__name__.removeprefix("check_")
            yield Finding(name, "failure", str(error), "mend the setting that is named")


def _show(out: Console, finding: Finding) -> None:
    style = STYLES[finding.level]
    line = f"  {finding.level:<8} {finding.name:<11} {finding.said}"
    out.print(line, style=style, markup=False)
    if finding.remedy:
        out.print(f"  {'':<8} {'':<11} → {finding.remedy}", markup=False)
