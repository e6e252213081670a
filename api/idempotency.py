"""Idempotency-Key: the same request under the same key gets the same answer, made once.

The answer is recorded in the transaction of what it tells of, after the route and before the
commit: a crash leaves both or neither. That of an upload has a transaction of its own.
See docs/decisions/0020-idempotency-keys.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session, sessionmaker

from api.uploads import media_type
from core.auth import Caller
from core.config import Settings
from core.errors import FewlabelsError
from core.idempotency import Answer, Asked, find_answer, keep_answer, parse_key

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
KEPT_HEADERS = ("content-type", "location")


async def answer_once(
    request: Request,
    caller: Caller,
    handle: Callable[[Request], Awaitable[Response]],
    *,
    reads_json: bool,
) -> Response:
    """The answer of the route, or the one that this request was given before.

    Args:
        request: Has the header.
        caller: Whose project the key belongs to.
        handle: The route.
        reads_json: Whether the body is small JSON, which is a part of what tells requests apart.

    Raises:
        RequestInvalid: The key has no allowed form.
        IdempotencyKeyReused: It was sent with another request.
    """
    key = parse_key(request.headers[HEADER])
    asked = Asked(caller, key, await _fingerprint(request, reads_json=reads_json))
    if (kept := await run_in_threadpool(_find, request, asked)) is not None:
        return _again(kept)
    try:
        response = await handle(request)
    except FewlabelsError:
        # What stood in the way may be what the same request made that came a moment earlier.
        kept = await run_in_threadpool(_find, request, asked)
        if kept is None:
            raise
    else:
        if not 200 <= response.status_code < 300:
            return response
        if await run_in_threadpool(_keep, request, asked, response):
            return response
        kept = await run_in_threadpool(_find, request, asked)
        assert kept is not None, "an answer was there, and is never deleted within a request"
    await run_in_threadpool(_undo, request)
    return _again(kept)


async def _fingerprint(request: Request, *, reads_json: bool) -> str:
    """What tells a request from others.

    An upload is told by its length, and its digest where the client states one: it may be
    gigabytes, a form has other boundaries each time, and images are known by their content anyway.
    """
    if reads_json:
        body = hashlib.sha256(await request.body()).hexdigest()
    else:
        stated = ("content-length", "content-digest", "repr-digest")
        body = "|".join(request.headers.get(name, "") for name in stated)
    url = request.url
    parts = [request.method, url.path, url.query, media_type(request), body]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _find(request: Request, asked: Asked) -> Answer | None:
    sessions: sessionmaker[Session] = request.app.state.sessions
    with sessions.begin() as session:
        return find_answer(session, asked, hours=_hours(request))


def _keep(request: Request, asked: Asked, response: Response) -> bool:
    headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    answer = Answer(response.status_code, headers, bytes(response.body))
    session: Session | None = getattr(request.state, "session", None)
    if session is not None:
        return keep_answer(session, asked, answer, hours=_hours(request))
    # An upload has committed chunk by chunk: all that is left to record is its answer.
    sessions: sessionmaker[Session] = request.app.state.sessions
    with sessions.begin() as own:
        return keep_answer(own, asked, answer, hours=_hours(request))


def _undo(request: Request) -> None:
    """Take back what this request has done: the answer tells of what the other one did."""
    session: Session | None = getattr(request.state, "session", None)
    if session is not None:
        session.rollback()


def _again(kept: Answer) -> Response:
    return Response(kept.body, kept.status, headers={**kept.headers, REPLAYED: "true"})


def _hours(request: Request) -> float:
    settings: Settings = request.app.state.settings
    return settings.idempotency_hours
