"""How far an upload is: a live bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

LINE_SECONDS = 5.0
BAR_WIDTH = 28
MEGABYTE = 10**6


class UploadDisplay(Protocol):
    """Shows how many files and bytes are done, of how many once that is known."""

    def expect(self, *, files: int, byte_count: int) -> None:
        """So many there are in all."""
        ...

    def show(self, *, files: int, byte_count: int) -> None:
        """So many are done."""
        ...


@contextmanager
def display(console: Console) -> Iterator[UploadDisplay]:
    """A bar where the console is a terminal, else lines."""
    if not console.is_terminal:
        yield Lines(console)
        return
    progress = Progress(
        TextColumn("  {task.fields[files]}", style="bold"),
        BarColumn(bar_width=BAR_WIDTH),
        TaskProgressColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with progress:
        yield Bar(progress)


class Bar:
    """A bar by bytes, with the number of files before it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._all: int | None = None
        self._task = progress.add_task("", total=None, files="0 files")

    def expect(self, *, files: int, byte_count: int) -> None:
        """From now on there is a share and a time left."""
        self._all = files
        self._progress.update(self._task, total=max(byte_count, 1))

    def show(self, *, files: int, byte_count: int) -> None:
        """Move the bar."""
        of = "" if self._all is None else f" of {self._all:,}"
        self._progress.update(self._task, completed=byte_count, files=f"{files:,}{of} files")


class Lines:
    """A line now and then."""

    def __init__(self, console: Console, *, pause_seconds: float = LINE_SECONDS) -> None:
        self._console = console
        self._pause = pause_seconds
        self._began = time.monotonic()
        self._printed_at = self._began
        self._all: int | None = None
        self._bytes = 0

    def expect(self, *, files: int, byte_count: int) -> None:
        """From now on lines say of how many."""
        self._all, self._bytes = files, byte_count

    def show(self, *, files: int, byte_count: int) -> None:
        """Print a line if the last one is old enough, or if everything is done."""
        now = time.monotonic()
        if now - self._printed_at < self._pause and files != self._all:
            return
        self._printed_at = now
        of = "" if self._all is None else f" of {self._all:,}"
        speed = byte_count / max(now - self._began, 0.001)
        left = (self._bytes - byte_count) / max(speed, 1.0)
        told = f", {left:.0f} s left" if self._all is not None and left > 1 else ""
        line = f"  {files:,}{of} files, {speed / MEGABYTE:.1f} MB/s{told}"
        self._console.print(line, markup=False)
