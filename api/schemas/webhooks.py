"""Webhooks and their deliveries as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.strict import StrictBody
from api.schemas.text import Text
from core.webhooks.service import ENDS, EVENTS, Event


class WebhookIn(StrictBody):
    """Who wants to be told, and what."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"url": "https://example.com/hooks/fewlabels", "events": ["job.failed"]}]
        }
    )

    url: Annotated[Text, Field(max_length=2000)] = Field(
        description="HTTPS and a public address, unless FEWLABELS_WEBHOOK_HOSTS names the host."
    )
    events: list[Event] = Field(
        default=list(ENDS),
        min_length=1,
        max_length=len(EVENTS),
        description="States of a job that it is told of; unless given, its ends.",
    )


class WebhookOut(BaseModel):
    """A webhook; its secret is shown once, when it is made."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    url: str
    events: list[str]
    created_at: datetime


class NewWebhookOut(WebhookOut):
    """A new webhook with its secret."""

    secret: str = Field(
        description="Signs the messages (Standard Webhooks). Keep it: it is not shown again."
    )


class WebhookPage(BaseModel):
    """A page of webhooks."""

    items: list[WebhookOut]
    next_cursor: str | None


class DeliveryOut(BaseModel):
    """A message and how far it is."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID = Field(description="Also in the header webhook-id, the same in every attempt.")
    event: str
    job_id: UUID | None
    body: dict[str, Any] = Field(description="The message's `data`.")
    state: Literal["pending", "delivered", "failed"]
    attempt: int
    status: int | None = Field(description="What the receiver answered last.")
    error: str | None
    next_at: datetime = Field(description="When a pending one is tried again.")
    created_at: datetime
    finished_at: datetime | None


class DeliveryPage(BaseModel):
    """A page of deliveries."""

    items: list[DeliveryOut]
    next_cursor: str | None
