"""Work for a caller as long as he is there, and as he will wait."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar, cast

from fastapi import Header
from starlette.requests import ClientDisconnect, Request

ResultT = TypeVar("ResultT")
HEADER = "X-Timeout-Ms"
LONGEST_MS = 24 * 3600 * 1000
TimeoutMs = Annotated[
    int | None,
    Header(
        alias=HEADER,
        ge=1,
        le=LONGEST_MS,
        description="How long the caller waits, in milliseconds, within what the service allows; "
        "then the answer is 504 and the work for it ends.",
    ),
]


def stated(value: str | None) -> int | None:
    """What a header says that is surely right; 0 for any other, which FastAPI is to judge."""
    if value is None:
        return None
    sure = value.isascii() and value.isdecimal() and len(value) <= len(str(LONGEST_MS))
    return int(value) if sure and int(value) <= LONGEST_MS else 0


def in_seconds(timeout_ms: int | None) -> float | None:
    """What the header asks for."""
    return None if timeout_ms is None else timeout_ms / 1000


async def unless_gone(request: Request, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """The result of the work, which is cancelled when the caller hangs up.

    The body must have been read: until then its pieces tell whether he is there. The work runs in
    the task of the request, as under `asyncio.timeout`: a task of its own would cost a small
    model's request a tenth of its time.

    Raises:
        ClientDisconnect: He has gone.
    """
    task = cast("asyncio.Task[Any]", asyncio.current_task())
    cancelled_before = task.cancelling()
    over = gone = False

    def hung_up(watching: asyncio.Task[None]) -> None:
        nonlocal gone
        if watching.cancelled():
            return
        watching.exception()  # looked at; whatever it is, nobody is there to be answered
        if not over:
            gone = True
            task.cancel()

    watching = asyncio.create_task(_gone(request))
    watching.add_done_callback(hung_up)
    try:
        return await work
    except asyncio.CancelledError:
        if gone and task.uncancel() <= cancelled_before:
            raise ClientDisconnect from None
        raise
    finally:
        over = True
        watching.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
