"""Traces of requests and jobs, where the settings name a collector; nothing where they do not.

What the rest of the project calls. OpenTelemetry is an extra, and only `otlp.py` imports it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from core.config import Settings


class Span(Protocol):
    """A part of a trace that is under way."""

    def note(self, **facts: str | int | float) -> None:
        """Add facts to it."""

    def fail(self, reason: str) -> None:
        """Mark it as failed; an exception that leaves its block does that by itself."""


class Tracing(Protocol):
    """How this process records spans."""

    provider: Any

    def span(
        self, name: str, *, parent: str | None, since: int | None, facts: dict[str, Any]
    ) -> AbstractContextManager[Span]:
        """A span around a block."""

    def traceparent(self) -> str | None:
        """The present span for another process, as W3C Trace Context writes it."""


class Unrecorded:
    """A span that nobody will see."""

    def note(self, **facts: str | int | float) -> None:
        """Nothing is kept."""

    def fail(self, reason: str) -> None:
        """Nothing is kept."""


class Untraced:
    """No collector is named."""

    provider = None

    @contextmanager
    def span(
        self, name: str, *, parent: str | None, since: int | None, facts: dict[str, Any]
    ) -> Iterator[Span]:
        """The block alone."""
        del name, parent, since, facts
        yield Unrecorded()

    def traceparent(self) -> str | None:
        """There is no span."""
        return None


class _Process:
    tracing: Tracing = Untraced()
    endpoint: str = ""


def start(settings: Settings, service: str) -> None:
    """Record spans of this process under the service's name, if the settings want it.

    Again with the same collector is no harm: an application may be made more than once.
    """
    if settings.otlp_endpoint == _Process.endpoint:
        return
    _Process.endpoint = settings.otlp_endpoint
    if not settings.otlp_endpoint:
        _Process.tracing = Untraced()
        return
    # By its name: its packages need not be there. The settings are refused when they are missed.
    otlp = importlib.import_module("core.tracing.otlp")
    _Process.tracing = otlp.OtlpTracing(settings, service)


def span(
    name: str, *, parent: str | None = None, since: int | None = None, **facts: str | int | None
) -> AbstractContextManager[Span]:
    """A span around a block.

    Args:
        name: Of few values: what differs from one to the next is a fact.
        parent: The traceparent of another process; None takes the span around this one.
        since: When it began, in nanoseconds since 1970, where that was before the block.
        facts: What to know of it; None is left out.
    """
    known = {f"fewlabels.{key}": value for key, value in facts.items() if value is not None}
    return _Process.tracing.span(name, parent=parent, since=since, facts=known)


def traceparent() -> str | None:
    """The present span for another process; None where nothing is recorded."""
    return _Process.tracing.traceparent()


def trace_ids(context: str | None) -> dict[str, str]:
    """The trace's id of a traceparent, for log lines; nothing where there is none."""
    return {} if context is None else {"trace_id": context.split("-")[1]}


def provider() -> Any:
    """OpenTelemetry's TracerProvider, for what instruments a library; None where there is none."""
    return _Process.tracing.provider
