"""Where in the queue a job stands, and which machines may take it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api.schemas.strict import StrictBody
from core.db.scheduling import MOST_PRIORITY

Priority = Annotated[int, Field(strict=True, ge=-MOST_PRIORITY, le=MOST_PRIORITY)]


class Placement(StrictBody):
    """What every job may say about its turn."""

    priority: Priority = Field(
        default=0,
        description="Of the jobs that are queued, one of a higher priority is taken first; among "
        "equals the oldest. A job that runs is not interrupted.",
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto",
        description="Which workers may take the job; `auto` is what FEWLABELS_DEVICE says. A job "
        "for a `gpu` waits until a worker that has one is free.",
    )
