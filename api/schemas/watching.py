"""What is told of a job to those who watch it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.strict import StrictBody


class LogQuery(StrictBody):
    """Which log lines."""

    after: int | None = Field(
        default=None,
        ge=0,
        le=2**63 - 1,
        description="Lines behind the one of this id, oldest first; without it the newest lines.",
    )
    attempt: int | None = Field(default=None, ge=1, le=10_000, description="Only of this attempt.")
    limit: int = Field(default=200, ge=1, le=10_000, description="Most lines.")
    format: Literal["json", "text"] = Field(
        default="json", description="`text`: a line each; X-Last-Id has the id to go on behind."
    )


class LogLineOut(BaseModel):
    """A line that the job's process wrote."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    attempt: int
    at: datetime
    level: str | None = Field(description="Of a structured line (FEWLABELS_LOG_FORMAT=json).")
    text: str
    fields: dict[str, Any]


class LogsOut(BaseModel):
    """Log lines, oldest first."""

    job_id: UUID
    lines: list[LogLineOut]
    last_id: int | None = Field(description="Pass it as `after` for what follows.")
