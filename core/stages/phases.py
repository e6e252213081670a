"""The phases of a stage as spans, from when each first tells of itself to when the next does."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from core.tracing import span


class PhaseSpans:
    """At most one span is open: what a stage does, it does one after the other."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._name: str | None = None

    def enter(self, name: str) -> None:
        """The stage is in this phase now; again with the same name changes nothing."""
        if name != self._name:
            self._open.close()
            self._name = name
            self._open.enter_context(span(name))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._name = None
        self._open.__exit__(kind, error, traceback)
