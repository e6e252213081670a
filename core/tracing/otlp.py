"""Spans by OpenTelemetry, sent over OTLP/HTTP in batches by a thread of their own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from core.config import Settings

PATH = "/v1/traces"
# A collector that is away must not hold up the end of a job's process for longer: some two seconds
# after it has written the job's end, the worker kills it.
EXPORT_SECONDS = 1.5
PAUSE_MILLISECONDS = 1000.0
_PROPAGATOR = TraceContextTextMapPropagator()


class RecordedSpan:
    """A span of OpenTelemetry."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def note(self, **facts: str | int | float) -> None:
        """Add facts to it."""
        self._span.set_attributes({f"fewlabels.{name}": value for name, value in facts.items()})

    def fail(self, reason: str) -> None:
        """Mark it as failed."""
        self._span.set_status(trace.Status(trace.StatusCode.ERROR, reason))


class OtlpTracing:
    """Whether a trace is recorded is decided where it begins, and holds for all processes."""

    def __init__(self, settings: Settings, service: str) -> None:
        resource = Resource.create(
            {
                "service.name": service,
                "service.version": version("fewlabels"),
                "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
            }
        )
        sampler = ParentBased(TraceIdRatioBased(settings.otlp_ratio))
        exporter = OTLPSpanExporter(endpoint_of(settings), timeout=EXPORT_SECONDS)
        self.provider = TracerProvider(sampler, resource)  # it flushes at the process's exit
        self.provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=PAUSE_MILLISECONDS)
        )
        self._tracer = self.provider.get_tracer("fewlabels")

    @contextmanager
    def span(
        self, name: str, *, parent: str | None, since: int | None, facts: dict[str, Any]
    ) -> Iterator[RecordedSpan]:
        """A span around a block, the present one within it."""
        context = None if parent is None else _PROPAGATOR.extract({"traceparent": parent})
        with self._tracer.start_as_current_span(
            name, context=context, start_time=since, attributes=facts
        ) as opened:
            yield RecordedSpan(opened)

    def traceparent(self) -> str | None:
        """The present span as W3C Trace Context writes it."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier.get("traceparent")


def endpoint_of(settings: Settings) -> str:
    """Where spans are sent: the collector's address with the path that the protocol gives it."""
    address = settings.otlp_endpoint.rstrip("/")
    return address if address.endswith(PATH) else f"{address}{PATH}"
