"""The way of the operations that are called most: past FastAPI's router and dependencies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, ExceptionHandler, Receive, Scope, Send

from api.guard import admitted
from api.presence import HEADER, stated
from core.auth import Caller

Operation = Callable[[Request, Caller, int | None], Awaitable[Response]]
TELEMETRY = "fastapi.telemetry"  # FastAPI measures this request itself and needs its own router


class ShortPath:
    """Answer plain calls of some operations with what their routes consist of, and nothing else.

    The guard, the limit of the body and the answers to errors are the same objects that FastAPI
    goes through; whatever is odd about a call (another method, a header to be refused) is left to
    FastAPI. It saves the matching of routes, the solving of dependencies and two thirds of the
    layers, which took longer than a small model's pass (docs/benchmarks.md, "Serving").

    Args:
        app: The long way.
        routes: Whose endpoints take a request, the caller and a time limit, and need `infer`.
        max_body_size: In bytes.
        handlers: Of errors, as FastAPI has them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Sequence[BaseRoute],
        max_body_size: int,
        handlers: Mapping[Any, ExceptionHandler],
    ) -> None:
        self.app = app
        known = {key: handle for key, handle in handlers.items() if key not in (500, Exception)}
        self._short: dict[str, ASGIApp] = {}
        for route in routes:
            assert isinstance(route, APIRoute)
            limited = RequestBodyLimitMiddleware(_answering(route), max_body_size)
            self._short[route.path] = ExceptionMiddleware(limited, known)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        way = self.app
        if scope["type"] == "http" and scope["method"] == "POST" and TELEMETRY not in scope:
            short = self._short.get(scope["path"])
            if short is not None and _is_plain(scope):
                way = short
        await way(scope, receive, send)


def _is_plain(scope: Scope) -> bool:
    # With a root path the routes have another form, which the router knows.
    return not scope.get("root_path") and stated(Headers(scope=scope).get(HEADER)) != 0


def _answering(route: APIRoute) -> ASGIApp:
    answer = cast(Operation, route.endpoint)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"], scope["endpoint"], scope["path_params"] = route, answer, {}
        request = Request(scope, receive, send)
        async with admitted(request, "infer") as caller:
            response = await answer(request, caller, stated(request.headers.get(HEADER)))
        await response(scope, receive, send)

    return app
