"""Event streams of jobs: one task reads for all listeners of a process and hands out."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from uuid import UUID

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session, sessionmaker

from core.config import Settings
from core.errors import TooManyStreams
from core.jobs.events import Batch, Event, read_events
from core.jobs.outages import DATABASE_AWAY
from core.telemetry import STREAMS, logger

log = logger(__name__)
POLL_SECONDS = 0.5
RETRY_AFTER = 5.0


class Listener:
    """One open stream: how far it has come, and a box for what is next.

    Nothing is read for a listener whose box is full: a slow client has a low position and takes
    no memory, and what it has not taken yet waits in the database.
    """

    def __init__(self, job_id: UUID, project_id: UUID, *, position: int, seconds: float) -> None:
        self.job_id = job_id
        self.project_id = project_id
        self.position = position
        self._until = time.monotonic() + seconds
        self._box: asyncio.Queue[Batch | None] = asyncio.Queue(1)

    @property
    def empty(self) -> bool:
        """Whether it has taken what it was given."""
        return self._box.empty()

    def give(self, batch: Batch) -> None:
        """Hand over what lies behind its position."""
        events = [event for event in batch.events if event.id > self.position]
        if events:
            self.position = events[-1].id
        if events or batch.end:
            self._box.put_nowait(Batch(events, batch.end))

    def close(self) -> None:
        """End the stream without a last word, so that the client comes again."""
        if self._box.full():
            self._box.get_nowait()  # it comes again with the position before
        self._box.put_nowait(None)

    async def batches(self) -> AsyncIterator[Batch]:
        """What is handed over, until the job has ended or the stream is closed or too old."""
        while True:
            try:
                left = self._until - time.monotonic()
                batch = await asyncio.wait_for(self._box.get(), left)
            except TimeoutError:
                return
            if batch is None:
                return
            yield batch
            if batch.end is not None:
                return


class Streams:
    """All event streams of a process; used in one event loop."""

    def __init__(self, sessions: sessionmaker[Session], settings: Settings) -> None:
        self._sessions = sessions
        self._settings = settings
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    @contextmanager
    def listen(
        self, job_id: UUID, project_id: UUID, *, position: int, first: Sequence[Event] = ()
    ) -> Iterator[Listener]:
        """A listener for the time of the block, which has `first` in its box.

        Raises:
            TooManyStreams: The process or the project has as many as it may have.
        """
        self._require_room(project_id)
        seconds = self._settings.stream_seconds
        listener = Listener(job_id, project_id, position=position, seconds=seconds)
        listener.give(Batch(list(first)))
        self._listeners.add(listener)
        STREAMS.set(len(self._listeners))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._read_on())
        if self._closing:
            listener.close()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            STREAMS.set(len(self._listeners))

    def close(self) -> None:
        """End all streams: the server stops, and would wait for them."""
        self._closing = True
        for listener in self._listeners:
            listener.close()

    def _require_room(self, project_id: UUID) -> None:
        of_project = Counter(listener.project_id for listener in self._listeners)[project_id]
        limits = (
            (len(self._listeners), self._settings.max_streams, "this process has"),
            (of_project, self._settings.max_project_streams, "the project has"),
        )
        for found, most, whose in limits:
            if found >= most:
                raise TooManyStreams(
                    f"{whose} {found} event streams open, {most} are allowed; close one, or ask "
                    "GET /jobs/{job_id} now and then",
                    retry_after=RETRY_AFTER,
                )

    async def _read_on(self) -> None:
        try:
            while self._listeners:
                await self._round()
                await asyncio.sleep(POLL_SECONDS)
        finally:
            for listener in self._listeners:
                listener.close()  # nobody waits for a task that is not there any more

    async def _round(self) -> None:
        waiting = [listener for listener in self._listeners if listener.empty]
        positions: dict[UUID, int] = {}
        for listener in waiting:
            before = positions.get(listener.job_id, listener.position)
            positions[listener.job_id] = min(before, listener.position)
        if not positions:
            return
        try:
            found = await run_in_threadpool(self._read, positions)
        except DATABASE_AWAY as error:
            log.warning("events are not read: the database is away", error=str(error))
            return
        for listener in waiting:
            if listener.job_id not in found:
                listener.close()  # the job is gone: the client is told so when it comes again
            elif listener.empty:
                listener.give(found[listener.job_id])

    def _read(self, positions: dict[UUID, int]) -> dict[UUID, Batch]:
        with self._sessions() as session:
            return read_events(session, positions)


def close_on_signal(streams: Streams) -> None:
    """End the streams as soon as the process is asked to stop, beside what happens anyway.

    uvicorn waits for open connections before it tells the application that it stops.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # signals are not this thread's
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if not callable(before):
            continue

        def stop(number: int, frame: FrameType | None, before: signal._HANDLER = before) -> None:
            loop.call_soon_threadsafe(streams.close)
            assert callable(before)
            before(number, frame)

        signal.signal(number, stop)
