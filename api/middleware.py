"""Around every request: its id, its log line, its metrics, and headers that browsers obey."""

from __future__ import annotations

import re
import time
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import body_too_large, is_plain_refusal
from api.headers import safe_headers
from core.telemetry import REQUEST_SECONDS, REQUESTS, bound, logger
from core.tracing import trace_ids, traceparent

log = logger("api.access")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
EVENT_STREAM = "text/event-stream"
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})


class RequestContext:
    """Give every request an id, a log line, metrics and safe headers."""

    def __init__(self, app: ASGIApp, *, tls: bool = False) -> None:
        self.app = app
        self.tls = tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid4().hex
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
                headers = MutableHeaders(scope=message)
                streams = headers.get("content-type", "").startswith(EVENT_STREAM)
                headers["X-Request-ID"] = request_id
                for name, value in safe.items():
                    headers.setdefault(name, value)
            await send(message)

        with bound(request_id=request_id, **trace_ids(traceparent())):
            try:
                await self.app(scope, receive, send_with_headers)
            finally:
                seconds = time.perf_counter() - started
                self._record(scope, status, seconds, timed=not streams)

    @staticmethod
    def _record(scope: Scope, status: int, seconds: float, *, timed: bool) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in METHODS else "other"
        REQUESTS.labels(method, route, str(status)).inc()
        if timed:  # a stream lasts as long as its job
            REQUEST_SECONDS.labels(route).observe(seconds)
        if scope["path"] not in QUIET:
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                milliseconds=round(seconds * 1000, 1),
            )
