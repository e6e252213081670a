"""What `fewlabels jobs watch` shows: a live picture on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from core.client import Job
from core.demo.progress import clock, loss_text, steps_text, time_text
from core.monitor.curve import draw

LINE_SECONDS = 5.0
BAR_WIDTH = 40
CURVE_HEIGHT = 8
WIDEST = 100
STYLES = {
    "succeeded": "bold green",
    "failed": "bold red",
    "crashed": "bold red",
    "cancelled": "bold yellow",
    "cancelling": "yellow",
    "running": "bold cyan",
}


class Picture:
    """State, bar, numbers and the curve of the loss; rich draws it again and again."""

    def __init__(self, job: Job, points: list[tuple[int, float]]) -> None:
        self.job = job
        self.points = points
        self.note = ""

    def take(self, job: Job) -> None:
        """Show the job as it is now; steps that are done again replace those of before."""
        self.job = job
        step, loss = job.progress.get("step"), job.progress.get("loss")
        if step is None or loss is None:
            return
        while self.points and self.points[-1][0] >= step:
            self.points.pop()
        self.points.append((step, float(loss)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw, as wide as there is room."""
        width = min(options.max_width, WIDEST)
        parts: list[RenderableType] = [self._head(), self._bar()]
        if numbers := numbers_text(self.job):
            parts.append(Text(f"  {numbers}", style="dim"))
        if message := self.job.progress.get("message"):
            parts.append(Text(f"  {message}", style="yellow"))
        if len(self.points) > 1:
            parts.append(Text("  loss", style="dim"))
            lines = draw(self.points, width=max(10, width - 14), height=CURVE_HEIGHT)
            parts += [Text(f"  {line}", style="cyan", no_wrap=True) for line in lines]
        if self.note:
            parts.append(Text(f"  {self.note}", style="yellow"))
        yield Group(*parts)

    def _head(self) -> Text:
        job = self.job
        head = Text("  ").append(job.stage, style="bold").append(f"  {job.id}  ", style="dim")
        return head.append(job.state, style=STYLES.get(job.state, ""))

    def _bar(self) -> Table:
        job = self.job
        steps, step = job.progress.get("steps") or 1, job.progress.get("step") or 0
        done = steps if job.state == "succeeded" else step
        row = Table.grid(padding=(0, 1))
        parts = (steps_text(job), loss_text(job), time_text(job))
        row.add_row(
            " ",
            ProgressBar(total=steps, completed=done, width=BAR_WIDTH),
            *(Text(part) for part in parts if part),
        )
        return row


class Lines:
    """A line at every change of the state, and now and then one of the progress."""

    def __init__(self, console: Console, *, pause_seconds: float = LINE_SECONDS) -> None:
        self._console = console
        self._pause = pause_seconds
        self._state = ""
        self._printed_at = -pause_seconds

    def take(self, job: Job) -> None:
        """Print what is new."""
        now = time.monotonic()
        if job.state == self._state and now - self._printed_at < self._pause:
            return
        parts = (job.state, steps_text(job), loss_text(job), numbers_text(job), time_text(job))
        line = ", ".join(part for part in parts if part and part != job.state)
        self._console.print(f"  {job.state}{': ' if line else ''}{line}", markup=False)
        self._state, self._printed_at = job.state, now


def numbers_text(job: Job) -> str:
    """Epoch, pace, learning rate and how well the encoder does, as far as they are known."""
    told: dict[str, Any] = dict(job.progress)
    parts = []
    # What has no time left to tell is called by its phase there.
    if told.get("phase") not in (None, "training", time_text(job)) and not job.ended:
        parts.append(str(told["phase"]))
    if told.get("epoch") is not None:
        of = f" of {told['epochs']:,}" if told.get("epochs") else ""
        parts.append(f"epoch {told['epoch']:,}{of}")
    if told.get("images_per_second"):
        parts.append(f"{told['images_per_second']:,.0f} images/s")
    if told.get("learning_rate") is not None:
        parts.append(f"learning rate {told['learning_rate']:.3g}")
    if told.get("knn_accuracy") is not None:
        parts.append(f"kNN {told['knn_accuracy']:.1%}")
    return ", ".join(parts)


def took_text(job: Job) -> str:
    """How long the last attempt took."""
    return "" if job.seconds is None else f" in {clock(job.seconds)}"
