"""Make, find and remove webhooks, and look at what they were told."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from typing import Literal, get_args
from uuid import UUID, uuid4

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from core.auth import Caller
from core.config import Settings
from core.db.models import Project
from core.db.webhooks import Webhook, WebhookDelivery
from core.errors import TooManyWebhooks, WebhookNotFound
from core.webhooks.address import check_url

Event = Literal["job.running", "job.succeeded", "job.failed", "job.crashed", "job.cancelled"]
EVENTS: tuple[Event, ...] = get_args(Event)
ENDS: tuple[Event, ...] = EVENTS[1:]
PING = "ping"
SECRET_PREFIX = "whsec_"  # of the Standard Webhooks specification


def create_webhook(
    session: Session, caller: Caller, *, url: str, events: Sequence[Event], settings: Settings
) -> Webhook:
    """A new one; its `secret` is for the caller to see once.

    Raises:
        WebhookUrlInvalid: The address is none that may be called.
        TooManyWebhooks: The project has as many as it may.
    """
    check_url(url, settings.trusted_webhook_hosts)
    # Held until the commit, so that two at once do not slip past the limit.
    session.execute(select(Project.id).where(Project.id == caller.project_id).with_for_update())
    counted = select(func.count()).where(Webhook.project_id == caller.project_id)
    if session.scalars(counted).one() >= settings.max_webhooks:
        raise TooManyWebhooks(
            f"the project has {settings.max_webhooks} webhooks, which is the most it may have "
            "(FEWLABELS_MAX_WEBHOOKS); delete one first"
        )
    secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    webhook = Webhook(
        id=uuid4(),
        project_id=caller.project_id,
        url=url,
        events=sorted(set(events)),
        secret=secret,
    )
    session.add(webhook)
    session.flush()
    return webhook


def webhooks_of(caller: Caller) -> Select[Webhook]:
    """Those of the caller's project."""
    return select(Webhook).where(Webhook.project_id == caller.project_id)


def get_webhook(session: Session, caller: Caller, webhook_id: UUID) -> Webhook:
    """One of the caller's project.

    Raises:
        WebhookNotFound: It is not there, or somebody else's.
    """
    found = session.scalars(webhooks_of(caller).where(Webhook.id == webhook_id)).one_or_none()
    if found is None:
        raise WebhookNotFound(f"webhook_id: no webhook has the id {webhook_id}")
    return found


def delete_webhook(session: Session, caller: Caller, webhook_id: UUID) -> None:
    """Remove it with its deliveries; nothing more is sent."""
    session.delete(get_webhook(session, caller, webhook_id))


def deliveries_of(webhook: Webhook) -> Select[WebhookDelivery]:
    """What a webhook that the caller owns was told, or will be."""
    return select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id)


def ping(session: Session, webhook: Webhook) -> WebhookDelivery:
    """A message that tells of nothing, to see whether it arrives."""
    delivery = WebhookDelivery(id=uuid4(), webhook_id=webhook.id, event=PING, body={})
    session.add(delivery)
    session.flush()
    session.refresh(delivery)
    return delivery
