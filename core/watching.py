"""Settings of what people can watch: events of jobs as they happen."""

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
