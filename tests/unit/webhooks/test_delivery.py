"""Messages from the change of a job's state to the receiver, on a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, update
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from core.config import Settings
from core.db.models import Job
from core.db.webhooks import Webhook, WebhookDelivery
from core.jobs.service import cancel_job
from core.jobs.states import JobState, move
from core.webhooks.call import Answer
from core.webhooks.delivery import AT_ONCE_EACH, Deliverer, claim, delay, forget, record
from core.webhooks.service import ENDS, Event, create_webhook
from tests.jobs_database import JobsDatabase, jobs_database
from tests.webhook_receiver import Receiver, receiving

HOLD = timedelta(seconds=60)


@pytest.fixture
def database(postgres_url: str) -> Iterator[JobsDatabase]:
    with jobs_database(postgres_url) as made:
        yield made


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def settings() -> Settings:
    return Settings(
        webhook_hosts="127.0.0.1", webhook_seconds=5, webhook_attempts=3, _env_file=None
    )


def hook(
    database: JobsDatabase, settings: Settings, url: str, events: tuple[Event, ...] = ENDS
) -> Webhook:
    with database.sessions.begin() as session:
        return create_webhook(session, database.caller, url=url, events=events, settings=settings)


def deliveries(database: JobsDatabase) -> list[WebhookDelivery]:
    with database.sessions.begin() as session:
        return list(session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.created_at)))


def send_due(database: JobsDatabase, settings: Settings) -> WebhookDelivery:
    """Send what is due and wait for it; the one message."""
    deliverer = Deliverer(database.sessions, settings)
    assert deliverer.wake() == 1
    deliverer.close()
    [row] = deliveries(database)
    return row


def make_due(database: JobsDatabase) -> None:
    with database.sessions.begin() as session:
        session.execute(update(WebhookDelivery).values(next_at=func.clock_timestamp()))


def cancelled(database: JobsDatabase) -> UUID:
    [job_id] = database.chain()
    with database.sessions.begin() as session:
        cancel_job(session, database.caller, job_id)
    return job_id


def test_the_end_of_a_job_is_told_signed(
    database: JobsDatabase, settings: Settings, receiver: Receiver
) -> None:
    made = hook(database, settings, receiver.url)
    job_id = cancelled(database)
    row = send_due(database, settings)
    assert (row.state, row.status, row.error, row.job_id) == ("delivered", 204, None, job_id)
    [(headers, body)] = receiver.requests
    message: dict[str, Any] = Verifier(made.secret).verify(body, headers)
    assert (message["type"], headers["webhook-id"]) == ("job.cancelled", str(row.id))
    data = message["data"]
    assert (data["job_id"], data["state"], data["model_id"]) == (str(job_id), "cancelled", None)
    with pytest.raises(WebhookVerificationError):
        Verifier(made.secret).verify(body.replace(b"cancelled", b"succeeded"), headers)
    assert Deliverer(database.sessions, settings).wake() == 0


def test_only_what_was_asked_for_and_of_the_own_project(
    database: JobsDatabase, settings: Settings, receiver: Receiver
) -> None:
    hook(database, settings, receiver.url, ("job.running",))
    job_id = cancelled(database)
    assert deliveries(database) == []
    [other] = database.chain()
    with database.sessions.begin() as session:
        assert move(
            session,
            other,
            JobState.QUEUED,
            JobState.RUNNING,
            fencing_token=Job.fencing_token + 1,
            attempt=Job.attempt + 1,
            lease_expires_at=func.clock_timestamp() + HOLD,
            worker="w",
            started_at=func.clock_timestamp(),
        )
    [row] = deliveries(database)
    assert (row.event, row.job_id) == ("job.running", other)
    assert job_id != other


def test_a_state_that_is_rolled_back_is_not_told(
    database: JobsDatabase, settings: Settings, receiver: Receiver
) -> None:
    hook(database, settings, receiver.url)
    [job_id] = database.chain()
    with database.sessions() as session:
        cancel_job(session, database.caller, job_id)
        session.rollback()
    assert deliveries(database) == []


def test_it_is_tried_again_and_then_given_up(
    database: JobsDatabase, settings: Settings, receiver: Receiver
) -> None:
    receiver.answer = lambda _: 500
    hook(database, settings, receiver.url)
    cancelled(database)
    first = send_due(database, settings)
    assert (first.state, first.error) == ("pending", "answered 500")
    assert Deliverer(database.sessions, settings).wake() == 0, "it is not due yet"
    for attempt, state in ((2, "pending"), (3, "failed")):
        make_due(database)
        row = send_due(database, settings)
        assert (row.state, row.attempt) == (state, attempt)
    assert row.finished_at is not None
    bodies = {(headers["webhook-id"], body) for headers, body in receiver.requests}
    assert (len(bodies), len(receiver.requests)) == (1, 3), "the same message each time"


def test_who_wants_no_more_is_asked_once(
    database: JobsDatabase, settings: Settings, receiver: Receiver
) -> None:
    receiver.answer = lambda _: 410
    hook(database, settings, receiver.url)
    cancelled(database)
    row = send_due(database, settings)
    assert (row.state, row.status) == ("failed", 410)


def test_a_name_that_leads_inside_by_now_is_not_called(
    database: JobsDatabase, settings: Settings, receiver: Receiver
) -> None:
    """The check at creation cannot know; the setting may have been taken back as well."""
    hook(database, settings, receiver.url)
    cancelled(database)
    row = send_due(database, settings.model_copy(update={"webhook_hosts": ""}))
    assert row.state == "pending"
    assert "not a public address" in (row.error or "")
    assert receiver.requests == []


def test_a_slow_receiver_takes_few_places_and_others_get_theirs(
    database: JobsDatabase, settings: Settings, receiver: Receiver
) -> None:
    slow = hook(database, settings, receiver.url)
    for _ in range(5):
        cancelled(database)
    quick = hook(database, settings, receiver.url)
    cancelled(database)
    with database.sessions.begin() as session:
        first = claim(session, most=100, without=[], hold=HOLD)
        again = claim(session, most=100, without=[slow.id], hold=HOLD)
    counts = [sum(message.webhook_id == made.id for message in first) for made in (slow, quick)]
    assert counts == [AT_ONCE_EACH, 1]
    assert again == []


def test_a_sender_that_was_late_writes_nothing(
    database: JobsDatabase, settings: Settings, receiver: Receiver
) -> None:
    hook(database, settings, receiver.url)
    cancelled(database)
    with database.sessions.begin() as session:
        [late] = claim(session, most=1, without=[], hold=timedelta(seconds=-1))
        [second] = claim(session, most=1, without=[], hold=HOLD)
        record(session, second, Answer(204, None), attempts=3)
        record(session, late, Answer(500, "answered 500"), attempts=3)
    [row] = deliveries(database)
    assert (row.state, row.status, row.attempt) == ("delivered", 204, 2)


def test_what_ended_is_forgotten_after_a_time(
    database: JobsDatabase, settings: Settings, receiver: Receiver
) -> None:
    made = hook(database, settings, receiver.url)
    old = func.clock_timestamp() - timedelta(days=31)
    with database.sessions.begin() as session:
        for finished in (old, None, func.clock_timestamp()):
            state = "pending" if finished is None else "failed"
            session.add(
                WebhookDelivery(
                    id=uuid4(),
                    webhook_id=made.id,
                    event="ping",
                    body=json.loads("{}"),
                    state=state,
                    finished_at=finished,
                )
            )
    with database.sessions.begin() as session:
        assert forget(session, days=30) == 1
    assert len(deliveries(database)) == 2


def test_the_pauses() -> None:
    seconds = [delay(attempt).total_seconds() for attempt in range(1, 8)]
    assert seconds == [10, 60, 360, 2160, 12960, 43200, 43200]
