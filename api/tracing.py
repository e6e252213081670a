"""Spans of requests, by OpenTelemetry's instrumentation of FastAPI."""

from __future__ import annotations

import importlib

from fastapi import FastAPI

from core import tracing
from core.config import Settings

# Asked every few seconds by machines.
NOT_TRACED = "healthz$,readyz$,metrics$"


def trace_requests(app: FastAPI, settings: Settings) -> None:
    """A span for each request, in the trace of a caller that sends a traceparent."""
    tracing.start(settings, "fewlabels-api")
    provider = tracing.provider()
    if provider is None:
        return
    instrumentation = importlib.import_module("opentelemetry.instrumentation.fastapi")
    instrumentation.FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=provider,
        excluded_urls=NOT_TRACED,
        exclude_spans=["receive", "send"],  # one for each piece of a body
    )
