"""Hints leave after the commit, and only then."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from structlog.testing import capture_logs

from core.config import Settings
from core.jobs import outbox, sweeping
from core.jobs.queue import CeleryQueue, make_celery
from tests.jobs_database import PLENTY, JobsDatabase

A, B = uuid4(), uuid4()


def test_sent_after_the_commit_in_order(database: JobsDatabase) -> None:
    with database.sessions() as session:
        outbox.enqueue(session, A)
        outbox.enqueue(session, B)
        session.execute(text("SELECT 1"))
        session.flush()
        assert database.queue.sent == []
        session.commit()
        assert database.queue.sent == [A, B]
        session.execute(text("SELECT 1"))
        session.commit()
    assert database.queue.sent == [A, B], "sent once"


def test_sent_even_when_nothing_else_was_done(database: JobsDatabase) -> None:
    with database.sessions.begin() as session:
        outbox.enqueue(session, A)
    assert database.queue.sent == [A]


def test_dropped_on_rollback(database: JobsDatabase) -> None:
    with database.sessions() as session:
        outbox.enqueue(session, A)
        session.rollback()
        session.execute(text("SELECT 1"))
        session.commit()
    assert database.queue.sent == []


def test_dropped_when_the_session_is_closed_without_a_commit(database: JobsDatabase) -> None:
    session = database.sessions()
    outbox.enqueue(session, A)
    session.close()
    with session.begin():
        session.execute(text("SELECT 1"))
    session.close()
    assert database.queue.sent == []


def test_not_sent_at_the_end_of_a_savepoint(database: JobsDatabase) -> None:
    with database.sessions.begin() as session:
        outbox.enqueue(session, A)
        with session.begin_nested():
            session.execute(text("SELECT 1"))
        assert database.queue.sent == []
    assert database.queue.sent == [A]


def test_a_savepoint_rolled_back_drops_nothing(database: JobsDatabase) -> None:
    with database.sessions.begin() as session:
        outbox.enqueue(session, A)
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            raise ZeroDivisionError
        assert database.queue.sent == []
    assert database.queue.sent == [A]


def test_sent_when_the_commit_closes_an_open_savepoint(database: JobsDatabase) -> None:
    with database.sessions() as session:
        outbox.enqueue(session, A)
        session.begin_nested()
        session.commit()
    assert database.queue.sent == [A]


def test_refused_inside_a_savepoint(database: JobsDatabase) -> None:
    with (
        database.sessions.begin() as session,
        session.begin_nested(),
        pytest.raises(RuntimeError, match="savepoint"),
    ):
        outbox.enqueue(session, A)
    assert database.queue.sent == []


def test_a_broker_that_is_away_is_logged_and_the_sweep_sends_again(database: JobsDatabase) -> None:
    database.queue.away = True
    with capture_logs() as logs:
        [job_id] = database.chain()
    assert [(line["log_level"], line["job_id"]) for line in logs] == [("warning", str(job_id))]
    assert database.row(job_id).state == "queued"

    database.queue.away = False
    with database.sessions.begin() as session:
        sweeping.sweep(session, hints_waiting={})
    assert job_id not in database.queue.sent, "the hint may still be under way"
    database.set(job_id, hinted_at=datetime.now(UTC) - sweeping.HINT_AGE - timedelta(seconds=1))
    with database.sessions.begin() as session:
        sweeping.sweep(session, hints_waiting={})
    assert database.queue.sent.count(job_id) == 1
    with database.sessions.begin() as session:
        sweeping.sweep(session, hints_waiting={})
    assert database.queue.sent.count(job_id) == 1, "not again at once"


def test_the_sweep_does_not_flood_a_long_queue(database: JobsDatabase) -> None:
    [job_id] = database.chain()
    database.set(job_id, hinted_at=None)
    database.queue.sent.clear()
    with database.sessions.begin() as session:
        sweeping.sweep(session, hints_waiting=PLENTY)
    assert database.queue.sent == []


@contextmanager
def deaf_port(*, frozen: bool) -> Iterator[int]:
    """A port that refuses connections, or takes them and never says a word."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        if frozen:
            bound.listen(20)
        yield bound.getsockname()[1]


@pytest.mark.parametrize("frozen", [False, True])
def test_celery_without_a_broker_raises_what_the_outbox_expects(frozen: bool) -> None:
    with deaf_port(frozen=frozen) as port:
        url = SecretStr(f"redis://127.0.0.1:{port}/0")
        app = make_celery(Settings(broker_url=url, _env_file=None))
        queue = CeleryQueue(app)
        for call in (lambda: queue.send(A, "cpu"), queue.check, queue.jobs_waiting):
            started = time.monotonic()
            with pytest.raises(OSError, match="broker does not answer"):
                call()
            assert time.monotonic() - started < 6, "requests wait for this"
        app.close()


def test_after_a_failure_no_request_waits_for_the_broker_for_a_while() -> None:
    with deaf_port(frozen=False) as port:
        url = SecretStr(f"redis://127.0.0.1:{port}/0")
        app = make_celery(Settings(broker_url=url, _env_file=None))
        queue = CeleryQueue(app)
        with pytest.raises(OSError, match=str(port)):
            queue.send(A, "cpu")
        with pytest.raises(OSError, match="a moment ago"):
            queue.send_import(B)
        app.close()
