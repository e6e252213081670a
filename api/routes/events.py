"""What happens to a job, as Server-Sent Events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.auth import ReadCaller
from api.dependencies import SessionDep
from api.errors import responses
from api.guard import GuardedRoute
from api.streams import Listener, Streams
from core.errors import JobNotFound, TooManyStreams
from core.jobs import service
from core.jobs.events import Event, latest_events

router = APIRouter(tags=["jobs"], route_class=GuardedRoute)
COME_AGAIN_MS = 1000
LastEventId = Annotated[
    int | None,
    Header(
        ge=0,
        le=2**63 - 1,
        description="The id of the last event that came; everything after it follows. 0: from "
        "the beginning. Without it the stream begins with where the job stands.",
    ),
]


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stream begins."""

    job_id: UUID
    project_id: UUID
    position: int
    first: list[Event]


def find_start(
    job_id: UUID, session: SessionDep, caller: ReadCaller, last_event_id: LastEventId = None
) -> Start:
    """Where the stream begins; a job that is not the caller's is not found."""
    job = service.get_job(session, caller, job_id)
    first = latest_events(session, job.id) if last_event_id is None else []
    return Start(job.id, job.project_id, last_event_id or 0, first)


async def open_listener(
    request: Request, start: Annotated[Start, Depends(find_start)]
) -> AsyncIterator[Listener]:
    """A listener until the response has ended."""
    streams = cast(Streams, request.app.state.streams)
    with streams.listen(
        start.job_id, start.project_id, position=start.position, first=start.first
    ) as listener:
        yield listener


@router.get(
    "/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    responses=responses(JobNotFound, TooManyStreams),
    summary="What happens to a job, as it happens (Server-Sent Events)",
)
async def follow_job(
    listener: Annotated[Listener, Depends(open_listener, scope="request")], caller: ReadCaller
) -> AsyncIterator[ServerSentEvent]:
    """`state` and `progress` have what `GET /jobs/{job_id}` shows, and `at`, the time.

    `end` comes last, with `state`, `attempt`, `error` and `model_id`; then the stream closes. One
    that closes without it goes on where it was when the client comes again with `Last-Event-ID`,
    as browsers do by themselves. A comment comes every 15 seconds when nothing happens.
    """
    del caller  # found by the guard; it says the scope
    yield ServerSentEvent(retry=COME_AGAIN_MS, comment="follows the job")
    last = listener.position
    async for batch in listener.batches():
        for event in batch.events:
            last = event.id
            yield _as_sent(event)
        if batch.end is not None:
            yield ServerSentEvent(event="end", id=str(last), data=batch.end)


def _as_sent(event: Event) -> ServerSentEvent:
    data: dict[str, Any] = {"at": event.at.isoformat(), **event.body}
    return ServerSentEvent(event=event.kind, id=str(event.id), data=data)
