"""Settings of what people can watch: events of jobs as they happen, their logs, and metrics."""

from __future__ import annotations

from importlib.util import find_spec
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

# What the extra `otel` brings; modules, not distributions.
TRACING = (
    "opentelemetry.sdk.trace",
    "opentelemetry.exporter.otlp.proto.http",
    "opentelemetry.instrumentation.fastapi",
)


class WatchSettings(BaseSettings):
    """The part of the settings that says how much may be watched, and for how long it is kept."""

    progress_seconds: float = Field(
        default=1.0,
        ge=0,
        description="Pause between two reports of a job's progress and metrics; 0 reports every "
        "step.",
    )
    max_streams: int = Field(
        default=1000,
        gt=0,
        description="Most event streams of jobs that one API process keeps open; more get 429.",
    )
    max_project_streams: int = Field(
        default=500,
        gt=0,
        description="Most event streams of one project in one API process; more get 429.",
    )
    stream_seconds: float = Field(
        default=3600.0,
        gt=0,
        description="How long an event stream stays open; then the client comes again with its "
        "key and Last-Event-ID, and misses nothing.",
    )
    event_hours: float = Field(
        default=24.0,
        gt=0,
        description="How long events are kept: progress from when it was written, states from "
        "when the job has ended.",
    )
    max_job_log_lines: int = Field(
        default=10_000,
        gt=0,
        description="Most log lines that are kept of a job for GET /jobs/{id}/logs: the newest.",
    )
    log_days: float = Field(
        default=30.0, gt=0, description="How long log lines of jobs are kept there."
    )
    worker_metrics_port: int = Field(
        default=0,
        ge=0,
        le=65534,
        description="Port of a worker's Prometheus metrics; the process that sweeps takes the next "
        "one. 0: none. The API has its own at /metrics.",
    )
    worker_metrics_host: str = Field(
        default="127.0.0.1", description="Address that a worker's metrics listen on."
    )
    otlp_endpoint: str = Field(
        default="",
        description="Collector that traces are sent to by OTLP over HTTP (http://collector:4318); "
        "needs `pip install 'fewlabels[otel]'`. Unset: no traces.",
    )
    otlp_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of the requests that are traced, with all that their jobs do; a caller "
        "that sends a traceparent has decided for his own.",
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _can_be_sent_to(cls, value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"found {value!r}; allowed is an address as http://collector:4318")
        if parts.username or parts.password:
            raise ValueError("a key has no place in it; OTEL_EXPORTER_OTLP_HEADERS is for that")
        if not all(map(_is_installed, TRACING)):
            raise ValueError(
                "it is set, but the packages for traces are not installed: "
                "pip install 'fewlabels[otel]'"
            )
        return value


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it would be in
        return False
