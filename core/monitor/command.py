"""`fewlabels jobs list` and `fewlabels jobs watch`: options, and exit codes by the result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Protocol

import typer
from rich.console import Console
from rich.live import Live

from core.client import Job, ServiceClient, ServiceRefused, Told
from core.demo.progress import loss_text, steps_text, time_text
from core.monitor.follow import follow
from core.monitor.screen import Lines, Picture, took_text

jobs = typer.Typer(help="Jobs of a running service: list, watch.", no_args_is_help=True)
CURVE_POINTS = 400
REFRESHES = 4  # a second
FAILED, CANCELLED, UNWATCHED, INTERRUPTED = 1, 3, 4, 130
EXIT_CODES = {"succeeded": 0, "failed": FAILED, "crashed": FAILED, "cancelled": CANCELLED}

UrlOption = Annotated[
    str, typer.Option("--url", envvar="FEWLABELS_URL", help="Where the service runs.")
]
KeyOption = Annotated[
    str | None, typer.Option("--api-key", envvar="FEWLABELS_API_KEY", help="If the service asks.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="A line of JSON each, for programs.")]
HERE = "http://127.0.0.1:8000"


class Shown(Protocol):
    """Something that shows a job."""

    def take(self, job: Job) -> None:
        """The job as it is now."""


@jobs.command("list")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only in this state.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only of this stage.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only on the dataset of this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most jobs.")] = 20,
    url: UrlOption = HERE,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    out = Console(soft_wrap=True, highlight=False)
    with _exit_codes(), ServiceClient(url, api_key=api_key) as client:
        wanted = {"state": state, "stage": stage, "dataset_id": dataset, "limit": limit}
        found = client.jobs(**{name: value for name, value in wanted.items() if value is not None})
        for job in found:
            if as_json:
                print(json.dumps(_as_json(job), ensure_ascii=False))
                continue
            parts = (steps_text(job), loss_text(job), time_text(job))
            told = "  ".join(part for part in parts if part)
            out.print(f"{job.id}  {job.stage:<8}  {job.state:<10}  {told}".rstrip(), markup=False)
        if not found and not as_json:
            out.print("  no jobs", style="dim")


@jobs.command("watch")
def watch(
    job_id: Annotated[str, typer.Argument(help="The job; `fewlabels jobs list` has the ids.")],
    url: UrlOption = HERE,
    api_key: KeyOption = None,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a service that does not answer.")
    ] = 120.0,
    as_json: JsonOption = False,
) -> None:
    """Follow a job until it ends.

    Exit code: 0 it succeeded, 1 it failed or crashed, 3 it was cancelled; 4 it could not be
    watched; 130 after Ctrl-C, which leaves the job running.
    """
    out = Console(highlight=False)
    with _exit_codes(), ServiceClient(url, api_key=api_key) as client:
        if as_json:
            for told in follow(client, job_id, patience=patience, lost=_say):
                print(json.dumps({"event": told.kind, **told.data}, ensure_ascii=False), flush=True)
        elif out.is_terminal:
            _watch_live(client, job_id, out, patience)
        else:
            _watch_lines(client, job_id, out, patience)
        job = client.job(job_id)
    if not as_json:
        _tell_end(out, job)
    # One that was tried again meanwhile is not over.
    raise typer.Exit(EXIT_CODES.get(job.state, UNWATCHED))


def _watch_live(client: ServiceClient, job_id: str, out: Console, patience: float) -> None:
    points = client.series(job_id, "loss", points=CURVE_POINTS)
    picture = Picture(client.job(job_id), points)

    def note(reason: str) -> None:
        picture.note = f"{reason}; trying again"

    with Live(picture, console=out, refresh_per_second=REFRESHES) as live:
        for job in _as_jobs(follow(client, job_id, patience=patience, lost=note), picture.job):
            picture.note = ""
            picture.take(job)
        picture.take(client.job(job_id))
        live.refresh()


def _watch_lines(client: ServiceClient, job_id: str, out: Console, patience: float) -> None:
    lines: Shown = Lines(out)
    first = client.job(job_id)
    for job in _as_jobs(follow(client, job_id, patience=patience, lost=_say), first):
        lines.take(job)


def _as_jobs(events: Iterator[Told], job: Job) -> Iterator[Job]:
    """The job after each event."""
    for told in events:
        if told.kind == "progress":
            job = replace(job, progress=told.data)
        elif told.data["state"] in ("queued", "running") and told.data["state"] != job.state:
            job = replace(job, state=told.data["state"], progress={})
        else:
            job = replace(job, state=told.data["state"])
        yield job


def _tell_end(out: Console, job: Job) -> None:
    model = f"; model {job.model_id}" if job.model_id else ""
    reason = f": {job.reason}" if job.reason else ""
    style = "green" if job.state == "succeeded" else "red"
    said = f"  {job.state}{took_text(job)}{reason}{model}"
    out.print(said, style=style, markup=False, soft_wrap=True)


def _as_json(job: Job) -> dict[str, object]:
    return {
        "id": job.id,
        "stage": job.stage,
        "state": job.state,
        "model_id": job.model_id,
        "progress": dict(job.progress),
        "reason": job.reason,
        "seconds": job.seconds,
    }


def _say(line: str) -> None:
    err = Console(stderr=True, soft_wrap=True, highlight=False)
    err.print(f"fewlabels: {line}", style="yellow", markup=False)


@contextmanager
def _exit_codes() -> Iterator[None]:
    try:
        yield
    except ServiceRefused as error:
        err = Console(stderr=True, soft_wrap=True, highlight=False)
        err.print(f"fewlabels: {error}", style="red", markup=False)
        raise typer.Exit(UNWATCHED) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
