"""How far the jobs are: live bars on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from core.client import Job

LINE_SECONDS = 5.0
BAR_WIDTH = 28
HOUR = 3600
WAITING = {"waiting": "waits for the stage before it", "queued": "waits for the worker"}


class JobDisplay(Protocol):
    """Shows jobs under their names until its block ends."""

    def __enter__(self) -> Self:
        """The display itself."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the display; what it showed last stays."""
        ...

    def show(self, jobs: Mapping[str, Job]) -> None:
        """Show where the jobs stand now."""
        ...


def job_display(console: Console) -> JobDisplay:
    """Bars where the console is a terminal, else lines."""
    return Bars(console) if console.is_terminal else Lines(console)


class Bars:
    """A bar for each job."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("  {task.description}", style="bold"),
            BarColumn(bar_width=BAR_WIDTH),
            TextColumn("{task.fields[steps]}", justify="right"),
            TextColumn("{task.fields[loss]}", justify="right"),
            TextColumn("{task.fields[time]}", justify="left"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        """Start to draw."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Draw a last time."""
        self._progress.stop()

    def show(self, jobs: Mapping[str, Job]) -> None:
        """Move the bars."""
        for name, job in jobs.items():
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, steps="", loss="", time="")
            step, steps = job.progress.get("step", 0), job.progress.get("steps") or 1
            ended_well = job.state == "succeeded"
            self._progress.update(
                self._tasks[name],
                completed=steps if ended_well else step,
                total=steps,
                steps=steps_text(job),
                loss=loss_text(job),
                time=time_text(job),
            )


class Lines:
    """One line now and then: what has ended since the last one, and what runs."""

    def __init__(self, console: Console, *, pause_seconds: float = LINE_SECONDS) -> None:
        self._console = console
        self._pause = pause_seconds
        self._printed_at = -pause_seconds
        self._told: set[str] = set()
        self._last = ""

    def __enter__(self) -> Self:
        """Nothing to start."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to end."""

    def show(self, jobs: Mapping[str, Job]) -> None:
        """Print a line if the last one is old enough, or if all jobs have ended."""
        now = time.monotonic()
        ended = {name for name, job in jobs.items() if job.ended}
        if ended == self._told == set(jobs):
            return
        if now - self._printed_at < self._pause and len(ended) < len(jobs):
            return
        new = [name for name in jobs if name in ended - self._told]
        running = [name for name, job in jobs.items() if job.state in ("running", "cancelling")]
        parts = [_sentence(name, jobs[name]) for name in (*new, *running)]
        line = "; ".join(parts) or "waiting for the worker"
        if line != self._last:
            self._console.print(f"  {line}", markup=False)
            self._last, self._printed_at = line, now
        self._told |= ended


def steps_text(job: Job) -> str:
    """The step of all steps, once there are any."""
    steps = job.progress.get("steps")
    return f"{job.progress['step']:,}/{steps:,}" if steps else ""


def loss_text(job: Job) -> str:
    """The loss of the last step told."""
    loss = job.progress.get("loss")
    return "" if loss is None else f"loss {loss:.3f}"


def time_text(job: Job) -> str:
    """Time left while it trains, time taken once it has ended, else what it waits for."""
    if job.ended:
        word = "done" if job.state == "succeeded" else job.state
        return word if job.seconds is None else f"{word} in {clock(job.seconds)}"
    if job.state in WAITING:
        return WAITING[job.state]
    left = job.progress.get("seconds_left")
    if left is not None and job.progress["step"] >= job.progress["steps"]:
        return "measuring and storing"
    if left is not None:
        return f"{clock(left)} left"
    return str(job.progress.get("phase", "starting"))


def clock(seconds: float) -> str:
    """m:ss, or h:mm:ss from an hour on."""
    whole = round(seconds)
    minutes = f"{whole // 60 % 60}:{whole % 60:02d}"
    return minutes if whole < HOUR else f"{whole // HOUR}:{minutes.zfill(5)}"


def _sentence(name: str, job: Job) -> str:
    told = [] if job.ended else [steps_text(job), loss_text(job)]
    return f"{name}: {', '.join(part for part in (*told, time_text(job)) if part)}"
