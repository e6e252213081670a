"""Cursors: there and back, and nothing else."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid4

import pytest

from core.db.paging import decode_cursor, encode_cursor
from core.errors import RequestInvalid


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    ],
)
def test_there_and_back(moment: datetime) -> None:
    row_id = uuid4()
    assert decode_cursor(encode_cursor(moment, row_id)) == (moment, row_id)


SOME_ID = "d49fa334-f2ff-41a5-b0dd-b8843923c0a3"  # the same in every process that runs tests


def packed(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "a",
        "é",
        "\0",
        "1",
        packed(""),
        packed("2026-01-01T00:00:00+00:00"),
        packed("2026-01-01T00:00:00+00:00|7"),
        packed(f"yesterday|{SOME_ID}"),
        packed(f"9999-12-31T23:59:59-23:59|{SOME_ID}"),
        base64.urlsafe_b64encode(b"\xff\xfe|\xff").decode(),
    ],
)
def test_others_are_refused(cursor: str) -> None:
    with pytest.raises(RequestInvalid, match=r"cursor: found .*next_cursor"):
        decode_cursor(cursor)


def test_offset_that_postgres_refuses_is_brought_to_utc() -> None:
    moment, _ = decode_cursor(packed(f"2026-01-01T00:00:00+23:59|{uuid4()}"))
    assert moment.utcoffset() == timedelta(0)
