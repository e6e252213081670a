"""Work for a caller as long as he is there, and as he will wait."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import Header
from starlette.requests import ClientDisconnect, Request

ResultT = TypeVar("ResultT")
TimeoutMs = Annotated[
    int | None,
    Header(
        alias="X-Timeout-Ms",
        ge=1,
        le=24 * 3600 * 1000,
        description="How long the caller waits, in milliseconds, within what the service allows; "
        "then the answer is 504 and the work for it ends.",
    ),
]


def in_seconds(timeout_ms: int | None) -> float | None:
    """What the header asks for."""
    return None if timeout_ms is None else timeout_ms / 1000


async def unless_gone(request: Request, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """The result of the work, which is cancelled when the caller hangs up.

    The body must have been read: until then its pieces tell whether he is there.

    Raises:
        ClientDisconnect: He has gone.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        watching.cancel()
        working.cancel()  # of no effect on work that is done


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
