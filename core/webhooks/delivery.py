"""Messages on their way: claimed, sent, tried again, and forgotten after a time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from core.config import Settings
from core.db.models import Model
from core.db.webhooks import Webhook, WebhookDelivery
from core.telemetry import logger
from core.webhooks.call import Answer, post
from core.webhooks.service import SECRET_PREFIX

log = logger(__name__)
AT_ONCE = 8
AT_ONCE_EACH = 2  # of one webhook: a slow receiver does not hold up the others
FIRST_DELAY = timedelta(seconds=10)
DELAY_GROWTH = 6
LONGEST_DELAY = timedelta(hours=12)
GONE = 410  # the receiver wants no more of it


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message that this process has for itself."""

    id: UUID
    webhook_id: UUID
    url: str
    secret: str
    attempt: int
    body: bytes


class Deliverer:
    """Sends what is due, in threads of its own; whoever wakes it does not wait."""

    def __init__(self, sessions: sessionmaker[Session], settings: Settings) -> None:
        self._sessions = sessions
        self._settings = settings
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhooks")
        self._lock = threading.Lock()
        self._flying: Counter[UUID] = Counter()

    def wake(self) -> int:
        """Begin to send what is due, as far as there is room; returns how many that are."""
        with self._lock:
            room = AT_ONCE - self._flying.total()
            if room <= 0:
                return 0
            busy = [key for key, count in self._flying.items() if count >= AT_ONCE_EACH]
            with self._sessions.begin() as session:
                hold = timedelta(seconds=self._settings.webhook_seconds + 60)
                claimed = claim(session, most=room, without=busy, hold=hold)
            for message in claimed:
                self._flying[message.webhook_id] += 1
        for message in claimed:
            self._threads.submit(self._send, message)
        return len(claimed)

    def close(self) -> None:
        """Wait for what is on its way."""
        self._threads.shutdown()

    def _send(self, message: Claimed) -> None:
        try:
            answer = post(
                message.url,
                message.body,
                signed_headers(message, datetime.now(UTC)),
                trusted=self._settings.trusted_webhook_hosts,
                seconds=self._settings.webhook_seconds,
            )
            with self._sessions.begin() as session:
                record(session, message, answer, attempts=self._settings.webhook_attempts)
        except Exception:
            # It is tried again when the claim is over.
            log.exception("a webhook could not be called", webhook_id=message.webhook_id)
        finally:
            with self._lock:
                self._flying[message.webhook_id] -= 1


def claim(session: Session, *, most: int, without: list[UUID], hold: timedelta) -> list[Claimed]:
    """Messages that are due; nobody else gets them for so long."""
    order = func.row_number().over(
        partition_by=WebhookDelivery.webhook_id, order_by=WebhookDelivery.next_at
    )
    due = (
        select(WebhookDelivery.id, order.label("place"))
        .where(
            WebhookDelivery.state == "pending",
            WebhookDelivery.next_at <= func.clock_timestamp(),
            WebhookDelivery.webhook_id.not_in(without),
        )
        .subquery()
    )
    chosen = (
        select(WebhookDelivery.id)
        .join(due, due.c.id == WebhookDelivery.id)
        .where(due.c.place <= AT_ONCE_EACH)
        .order_by(WebhookDelivery.next_at)
        .limit(most)
        .with_for_update(skip_locked=True, of=WebhookDelivery)
    )
    taken = (
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(chosen), WebhookDelivery.state == "pending")
        .values(attempt=WebhookDelivery.attempt + 1, next_at=func.clock_timestamp() + hold)
        .returning(WebhookDelivery)
    )
    rows = list(session.scalars(taken))
    ids = {row.webhook_id for row in rows}
    hooks = {hook.id: hook for hook in session.scalars(select(Webhook).where(Webhook.id.in_(ids)))}
    models = _models_of(session, [row.job_id for row in rows if row.job_id is not None])
    return [_claimed(row, hooks[row.webhook_id], models) for row in rows]


def _models_of(session: Session, jobs: list[UUID]) -> dict[UUID, UUID]:
    found = session.execute(select(Model.job_id, Model.id).where(Model.job_id.in_(jobs)))
    return {row.job_id: row.id for row in found}


def _claimed(row: WebhookDelivery, hook: Webhook, models: dict[UUID, UUID]) -> Claimed:
    data: dict[str, Any] = dict(row.body)
    if row.job_id is not None:
        # Recorded beside the end of its job, maybe after the state that wrote this message.
        model_id = models.get(row.job_id)
        data["model_id"] = None if model_id is None else str(model_id)
    message = {"type": row.event, "timestamp": row.created_at.isoformat(), "data": data}
    body = json.dumps(message, ensure_ascii=False).encode()
    return Claimed(row.id, hook.id, hook.url, hook.secret, row.attempt, body)


def signed_headers(message: Claimed, now: datetime) -> dict[str, str]:
    """The headers of the Standard Webhooks specification (standardwebhooks.com, version 1)."""
    moment = str(int(now.timestamp()))
    key = base64.b64decode(message.secret.removeprefix(SECRET_PREFIX))
    signed = f"{message.id}.{moment}.".encode() + message.body
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "content-type": "application/json",
        "user-agent": "fewlabels",
        "webhook-id": str(message.id),
        "webhook-timestamp": moment,
        "webhook-signature": f"v1,{signature}",
    }


def record(session: Session, message: Claimed, answer: Answer, *, attempts: int) -> None:
    """Write down how it went, unless somebody else has tried it since."""
    now = func.clock_timestamp()
    values: dict[str, Any] = {"status": answer.status, "error": answer.error}
    if answer.arrived:
        values |= {"state": "delivered", "finished_at": now}
    elif answer.status == GONE or message.attempt >= attempts:
        values |= {"state": "failed", "finished_at": now}
    else:
        values["next_at"] = now + delay(message.attempt)
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == message.id, WebhookDelivery.attempt == message.attempt)
        .values(**values)
    )


def delay(attempt: int) -> timedelta:
    """How long to wait after so many attempts."""
    growth: int = DELAY_GROWTH ** min(attempt - 1, 10)
    return min(FIRST_DELAY * growth, LONGEST_DELAY)


def forget(session: Session, *, days: float) -> int:
    """Remove what ended so long ago; returns how many that were."""
    old = (
        delete(WebhookDelivery)
        .where(WebhookDelivery.finished_at < func.clock_timestamp() - timedelta(days=days))
        .returning(WebhookDelivery.id)
    )
    return len(session.scalars(old).all())
