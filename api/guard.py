"""What every operation on data asks before it reads a byte of the body."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.auth import NeedsScope, caller_of
from api.idempotency import HEADER, answer_once
from api.request_rate import RequestRate
from core.auth import Caller, Scope


class GuardedRoute(APIRoute):
    """A route that knows its caller first: FastAPI alone would parse the body before it asks.

    A POST that needs the scope `write` takes an Idempotency-Key; its endpoint makes what it makes
    in the session of `SessionDep`, where the answer is kept as well.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of FastAPI behind the guard."""
        handle = super().get_route_handler()
        scope = self.scope
        makes = "POST" in (self.methods or ()) and scope == "write"
        reads_json = self.body_field is not None

        async def guarded(request: Request) -> Response:
            async with admitted(request, scope) as caller:
                if makes and HEADER in request.headers:
                    return await answer_once(request, caller, handle, reads_json=reads_json)
                return await handle(request)

        return guarded

    @property
    def scope(self) -> Scope:
        """The scope that the endpoint's caller needs.

        Raises:
            TypeError: The endpoint takes no caller.
        """
        for dependency in self.dependant.dependencies:
            if isinstance(dependency.call, NeedsScope):
                return dependency.call.scope
        raise TypeError(
            f"{self.path}: its endpoint takes no caller; add `caller: ReadCaller` (or WriteCaller, "
            "InferCaller) of api.auth, or leave GuardedRoute away if the operation is public"
        )


@asynccontextmanager
async def admitted(request: Request, scope: Scope) -> AsyncIterator[Caller]:
    """Who calls, before a byte of the body is read; a serving request has room for its body.

    Raises:
        Unauthenticated: Not with this key.
        Forbidden: The key lacks the scope.
        TooManyRequests: The key has sent too many within the last second.
        Overloaded: The bodies of other requests fill the memory that there is for them.
    """
    caller = request.state.caller = await caller_of(request, scope)
    await _count(request, caller)
    if scope != "infer":
        yield caller
        return
    with request.app.state.inbound.room(request):
        yield caller


async def _count(request: Request, caller: Caller) -> None:
    rate: RequestRate = request.app.state.request_rate
    if rate.policy is not None:
        request.state.safe_headers["RateLimit-Policy"] = rate.policy
    await rate.admit(caller)
