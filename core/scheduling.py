"""Settings of when and where jobs run, and how long their checkpoints are kept."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class SchedulingSettings(BaseSettings):
    """The part of the settings that a claim and the sweep look at."""

    checkpoint_hours: float = Field(
        default=7 * 24.0,
        ge=0,
        description="How long the last checkpoint of a failed, crashed or cancelled job is kept "
        "for a retry. That of a job that ended well is deleted at once.",
    )
