"""Settings of what people can watch: events of jobs as they happen, their logs, and metrics."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class WatchSettings(BaseSettings):
    """The part of the settings that says how much may be watched, and for how long it is kept."""

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
