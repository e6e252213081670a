"""Keeps the lease of a running job, apart from whoever watches its process."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from sqlalchemy.orm import Session, sessionmaker

from core.errors import LeaseLost
from core.jobs import leases
from core.jobs.leases import Claim
from core.jobs.outages import DATABASE_AWAY
from core.jobs.states import JobState
from core.telemetry import carried, logger

log = logger(__name__)
RENEW_SECONDS = 1.0  # often, so that a cancel is felt within a second


class LeaseKeeper:
    """Renews a lease in a thread of its own: a database that hangs must not hold up the watch.

    Attributes:
        cancelled: Somebody asked the job to stop.
        lost: The database says that the job is no longer held: it has ended, or another worker
            took over.
    """

    def __init__(
        self,
        held: Claim,
        sessions: sessionmaker[Session],
        *,
        lease_seconds: float,
        claimed_at: float,
    ) -> None:
        """Take the claim with the monotonic time before it was asked for."""
        self.cancelled = False
        self.lost = False
        self._held = held
        self._sessions = sessions
        self._lease_seconds = lease_seconds
        self._until = claimed_at + lease_seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=carried(self._keep), name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()

    def remaining(self) -> float:
        """The part of the lease, 1 to 0, that is certainly left; nobody takes the job before 0."""
        return (self._until - time.monotonic()) / self._lease_seconds

    def _keep(self) -> None:
        while not self._done.wait(min(self._lease_seconds / 4, RENEW_SECONDS)):
            asked_at = time.monotonic()
            try:
                with self._sessions.begin() as session:
                    seconds = self._lease_seconds
                    state = leases.renew(session, self._held, lease_seconds=seconds)
            except LeaseLost:
                self.lost = True
                return
            except DATABASE_AWAY as error:
                log.warning("the lease was not renewed", error=str(error))
                continue
            self._until = asked_at + self._lease_seconds
            self.cancelled = state == JobState.CANCELLING
