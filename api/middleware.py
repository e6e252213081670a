"""Around every request: its id, its log line, its metrics, and headers that browsers obey."""

from __future__ import annotations

import random
import re
import time
from functools import cache

from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import body_too_large, is_plain_refusal
from api.headers import safe_headers
from core.telemetry import REQUEST_SECONDS, REQUESTS, bound, logger
from core.tracing import trace_ids, traceparent

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
EVENT_STREAM = b"text/event-stream"
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})


def _complete(message: Message, ours: dict[str, str]) -> bool:
    """Add the headers that an answer does not have; says whether it is a stream of events."""
    headers: list[tuple[bytes, bytes]] = message.setdefault("headers", [])
    there = {name.lower(): value for name, value in headers}
    for name, value in ours.items():
        encoded = _encoded(name.lower())
        if encoded not in there:
            headers.append((encoded, value.encode("latin-1")))
    return there.get(b"content-type", b"").startswith(EVENT_STREAM)


def _new_id() -> str:
    # Not from the operating system, as uuid4 is: that lets go of the interpreter, and the event
    # loop waits until another thread gives it back. Nothing depends on its being hard to guess.
    return f"{random.getrandbits(128):032x}"


@cache
def _encoded(name: str) -> bytes:
    return name.encode("latin-1")


# `labels` checks and looks up by a lock; there are as many of them as routes and statuses.
@cache
def _requests(method: str, route: str, status: int) -> Counter:
    return REQUESTS.labels(method, route, str(status))


@cache
def _request_seconds(route: str) -> Histogram:
    return REQUEST_SECONDS.labels(route)


class RequestContext:
    """Give every request an id, a log line, metrics and safe headers."""

    def __init__(self, app: ASGIApp, *, tls: bool = False) -> None:
        self.app = app
        self.tls = tls
        # Bound here: a logger of the module would be put together anew for every line.
        self._log = logger("api.access").bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id")
        request_id = given if given and REQUEST_ID.fullmatch(given) else _new_id()
        safe = safe_headers(scope, tls=self.tls)
        # In the state for the answer to an unexpected error, which goes past this middleware.
        scope.setdefault("state", {}).update(request_id=request_id, safe_headers=safe)
        started = time.perf_counter()
        status = 500
        refused = streams = False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, refused, streams
            if refused:  # the rest of the answer that ours stands for
                return
            if is_plain_refusal(message):
                response = body_too_large(Request(scope))
                await response(scope, receive, send_with_headers)
                refused = True
                return
            if message["type"] == "http.response.start":
                status = message["status"]
                streams = _complete(message, {"X-Request-ID": request_id, **safe})
            await send(message)

        with bound(request_id=request_id, **trace_ids(traceparent())):
            try:
                await self.app(scope, receive, send_with_headers)
            finally:
                seconds = time.perf_counter() - started
                self._record(scope, status, seconds, timed=not streams)

    def _record(self, scope: Scope, status: int, seconds: float, *, timed: bool) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in METHODS else "other"
        _requests(method, route, status).inc()
        if timed:  # a stream lasts as long as its job
            _request_seconds(route).observe(seconds)
        if scope["path"] not in QUIET:
            self._log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                milliseconds=round(seconds * 1000, 1),
            )
