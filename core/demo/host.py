"""Runs the embedded service around a piece of work, and stops it when the work is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Generic, TypeVar

from core.config import Settings
from core.demo.run import Interrupted
from core.embedded.service import run_service

T = TypeVar("T")
Work = Callable[[str, Callable[[], bool]], T]


def on_embedded_service(settings: Settings, work: Work[T], *, tell: Callable[[str], None]) -> T:
    """Start the service, do the work in a thread beside it, stop the service.

    Args:
        settings: As for `fewlabels up`.
        work: Gets the service's URL, and a function that is true once somebody asked to stop.
        tell: Gets one line for each thing that happens.

    Returns:
        What the work returns.

    Raises:
        EmbeddedServerFailed: The service did not start, or did not keep running.
        Interrupted: A signal asked to stop, before the work began or during it.
    """
    worker = _Worker(work)
    try:
        run_service(settings, tell=tell, ready=worker.begin)
    finally:
        worker.stopping = True
        worker.join()
    return worker.outcome()


@dataclass(frozen=True, slots=True)
class _Done(Generic[T]):
    value: T


class _Worker(Generic[T]):
    """The work's thread, and the signals while it runs.

    The first signal stops the work while the service still answers, so that it can clean up
    there; the second one stops the service at once.
    """

    def __init__(self, work: Work[T]) -> None:
        self.stopping = False
        self._work = work
        self._thread: threading.Thread | None = None
        self._done: _Done[T] | None = None
        self._error: BaseException | None = None

    def begin(self, url: str) -> None:
        """Start the thread; called by the service in the main thread, with its handlers set."""
        stop_service = signal.getsignal(signal.SIGTERM)
        assert callable(stop_service)
        end: Callable[[int, FrameType | None], object] = stop_service

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self.stopping:
                end(number, frame)
            self.stopping = True

        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(name) is stop_service:
                signal.signal(name, on_signal)
        # Handler and service share one flag, which any thread may set.
        self._thread = threading.Thread(
            target=self._run, args=(url, lambda: end(signal.SIGTERM, None)), name="demo"
        )
        self._thread.start()

    def _run(self, url: str, stop_service: Callable[[], object]) -> None:
        try:
            self._done = _Done(self._work(url, lambda: self.stopping))
        except BaseException as error:  # noqa: BLE001 — raised again by outcome()
            self._error = error
        finally:
            stop_service()

    def join(self) -> None:
        """Wait for the thread, if it was started."""
        if self._thread is not None:
            self._thread.join()

    def outcome(self) -> T:
        """What the work returned, or its error."""
        if self._error is not None:
            raise self._error
        if self._done is None:
            raise Interrupted
        return self._done.value
