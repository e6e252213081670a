"""Keeps child processes running, and stops them in the reverse order of their start."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from core.embedded.folder import DataFolder
from core.embedded.processes import Child, Program
from core.errors import EmbeddedServerFailed

QUICK_SECONDS = 30.0
QUICK_DEATHS = 5
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 8.0
POLL_SECONDS = 0.05


class StopRequested(Exception):
    """Somebody asked to stop while a start was under way."""


class _Watched:
    """A child, and how often in a row it died young."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.quick_deaths = 0
        self.restart_at: float | None = None


class Supervisor:
    """Starts programs, restarts those that die, and ends all of them when its block ends."""

    def __init__(
        self,
        folder: DataFolder,
        *,
        tell: Callable[[str], None] = lambda _: None,
        stop_requested: Callable[[], bool] = lambda: False,
        quick_deaths: int = QUICK_DEATHS,
    ) -> None:
        """Nothing runs yet.

        Args:
            folder: Where logs and records go.
            tell: Gets one line for each thing that a person should know.
            quick_deaths: How often in a row a child may die young before it is given up.
            stop_requested: Asked while waiting; true ends a wait with StopRequested.
        """
        self.folder = folder
        self._tell = tell
        self._stop_requested = stop_requested
        self._most_quick_deaths = quick_deaths
        self._watched: list[_Watched] = []

    def __enter__(self) -> Self:
        """The supervisor itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the children, last started first."""
        while self._watched:
            self._watched[-1].child.end()
            self._watched.pop()

    def start(self, program: Program) -> Child:
        """Start a program and watch it from now on."""
        child = Child(program, self.folder, position=len(self._watched))
        self._watched.append(_Watched(child))
        return child

    def children(self) -> list[Child]:
        """All that are watched; one that has died is there until it is started again."""
        return [watched.child for watched in self._watched]

    def drop(self, child: Child) -> None:
        """End a child and watch it no more."""
        child.end()
        self._watched = [watched for watched in self._watched if watched.child is not child]

    def wait(self, child: Child, ready: Callable[[], bool], *, seconds: float) -> None:
        """Wait until a child that was just started is ready.

        Raises:
            EmbeddedServerFailed: It ended, or the time is over.
            StopRequested: Somebody asked to stop.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if (code := child.exit_code()) is not None:
                raise EmbeddedServerFailed(
                    f"{child.program.name} did not start (exit code {code}): "
                    f"{child.last_line()} — more in {child.log}"
                )
            if time.monotonic() > deadline:
                raise EmbeddedServerFailed(
                    f"{child.program.name} was not ready after {seconds:.0f} s; see {child.log}"
                )
            self.check_stop()
            time.sleep(POLL_SECONDS)

    def check_stop(self) -> None:
        """StopRequested when somebody asked to stop."""
        if self._stop_requested():
            raise StopRequested

    def step(self) -> None:
        """Look after every child once; call it a few times a second.

        Raises:
            EmbeddedServerFailed: A child died too often in a row.
        """
        for watched in self._watched:
            if watched.restart_at is None:
                if watched.child.exit_code() is not None:
                    self._plan_restart(watched)
            elif time.monotonic() >= watched.restart_at:
                self._restart(watched)

    def _plan_restart(self, watched: _Watched) -> None:
        child = watched.child
        now = time.monotonic()
        quick = now - child.started < QUICK_SECONDS
        watched.quick_deaths = watched.quick_deaths + 1 if quick else 1
        name, code = child.program.name, child.exit_code()
        if watched.quick_deaths >= self._most_quick_deaths:
            raise EmbeddedServerFailed(
                f"{name} ended {watched.quick_deaths} times in a row (exit code {code}); "
                f"see {child.log}"
            )
        delay = min(FIRST_DELAY_SECONDS * 2 ** (watched.quick_deaths - 1), LONGEST_DELAY_SECONDS)
        watched.restart_at = now + delay
        self._tell(f"{name} ended (exit code {code}), starting it again in {delay:.1f} s")

    def _restart(self, watched: _Watched) -> None:
        program = watched.child.program
        watched.child.end()  # collects it and drops its record
        watched.child = Child(program, self.folder, position=self._watched.index(watched))
        watched.restart_at = None
