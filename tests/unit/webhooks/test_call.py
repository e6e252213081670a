"""Calls to real receivers: guarded, bounded, not redirected."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from core.webhooks.call import Answer, post
from tests.webhook_receiver import Receiver, receiving

HERE = frozenset({"127.0.0.1"})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def call(url: str, *, seconds: float = 5, trusted: frozenset[str] = HERE) -> Answer:
    return post(url, b"{}", {"x-own": "1"}, trusted=trusted, seconds=seconds)


def test_a_call_arrives(receiver: Receiver) -> None:
    assert call(receiver.url) == Answer(204, None)
    [(headers, body)] = receiver.requests
    assert (headers["x-own"], headers["host"], body) == ("1", f"127.0.0.1:{receiver.port}", b"{}")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda _: status
    receiver.headers = {"location": receiver.url}
    answer = call(receiver.url)
    assert answer == Answer(status, f"answered {status}; redirects are not followed")
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [400, 410, 500, 503])
def test_a_refusal_is_told(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda _: status
    assert call(receiver.url) == Answer(status, f"answered {status}")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "[::ffff:127.0.0.1]"])
def test_nothing_is_sent_inside(receiver: Receiver, host: str) -> None:
    answer = call(f"http://{host}:{receiver.port}/", trusted=frozenset())
    assert answer.status is None
    assert "not a public address" in (answer.error or "")
    assert receiver.requests == []


def test_a_receiver_that_drips_does_not_hold_the_caller(receiver: Receiver) -> None:
    receiver.drips = True
    began = time.monotonic()
    assert call(receiver.url, seconds=0.6) == Answer(None, "no answer within 0.6 seconds")
    assert time.monotonic() - began < 10, "ten seconds of bytes were on their way"


def test_what_does_not_answer_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "ConnectError" in (call(f"http://127.0.0.1:{port}/").error or "")
    unknown = call("http://nobody.invalid/", trusted=frozenset({"nobody.invalid"}))
    assert "nobody.invalid cannot be found" in (unknown.error or "")


def test_https_is_spoken_where_it_is_asked_for(receiver: Receiver) -> None:
    answer = call(receiver.url.replace("http:", "https:"))
    assert answer.status is None
    assert receiver.requests == []
