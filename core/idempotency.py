"""Answers kept under an Idempotency-Key: a request that is sent again changes nothing again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.auth import Caller
from core.db.answers import KeptAnswer
from core.errors import IdempotencyKeyReused, RequestInvalid

MAX_CHARACTERS = 255
# A string of RFC 9651 as the IETF's draft has it, or the bare word that most clients send.
QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
BARE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer, as it went out."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """A request under a key: who sent it, and what tells it from others."""

    caller: Caller
    key: str
    fingerprint: str


def parse_key(header: str) -> str:
    """The key in the value of an Idempotency-Key header; `"abc"` and `abc` are the same.

    Raises:
        RequestInvalid: It has a form that is not allowed.
    """
    value = header.strip(" \t")
    if quoted := QUOTED.fullmatch(value):
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    else:
        key = value if BARE.fullmatch(value) else ""
    if not 1 <= len(key) <= MAX_CHARACTERS:
        raise RequestInvalid(
            f"Idempotency-Key: found {value[:80]!r}; allowed are 1 to {MAX_CHARACTERS} printable "
            "ASCII characters, in double quotes or without, such as a UUID"
        )
    return key


def find_answer(session: Session, asked: Asked, *, hours: float) -> Answer | None:
    """What the same request was answered within these hours.

    Raises:
        IdempotencyKeyReused: Another request of the project has this key.
    """
    kept = session.scalars(
        select(KeptAnswer).where(
            KeptAnswer.project_id == asked.caller.project_id,
            KeptAnswer.key == asked.key,
            KeptAnswer.created_at > _oldest(hours),
        )
    ).one_or_none()
    if kept is None:
        return None
    if kept.fingerprint != asked.fingerprint:
        raise IdempotencyKeyReused(
            f"Idempotency-Key: {asked.key[:80]!r} was sent with another request before (another "
            "path, query or body); a new request needs a new key"
        )
    return Answer(kept.status, kept.headers, kept.body)


def keep_answer(session: Session, asked: Asked, answer: Answer, *, hours: float) -> bool:
    """Record the answer; False when another request under this key has committed first.

    Waits for one that is not finished yet: so two that came together do not both commit.
    """
    own = (KeptAnswer.project_id == asked.caller.project_id, KeptAnswer.key == asked.key)
    session.execute(delete(KeptAnswer).where(*own, KeptAnswer.created_at <= _oldest(hours)))
    put = insert(KeptAnswer).values(
        project_id=asked.caller.project_id,
        key=asked.key,
        fingerprint=asked.fingerprint,
        status=answer.status,
        headers=answer.headers,
        body=answer.body,
    )
    recorded = put.on_conflict_do_nothing().returning(KeptAnswer.key)
    return session.scalar(recorded) is not None


def forget_answers(session: Session, *, hours: float) -> int:
    """Delete the answers that are older; how many there were."""
    old = delete(KeptAnswer).where(KeptAnswer.created_at <= _oldest(hours))
    return len(session.scalars(old.returning(KeptAnswer.key)).all())


def _oldest(hours: float) -> datetime:
    return datetime.now(UTC) - timedelta(hours=hours)
