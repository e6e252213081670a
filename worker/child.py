"""One job, one child process: start it, renew the lease, stop it, tell how it ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from uuid import UUID

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from core.config import Settings
from core.errors import LeaseLost
from core.jobs import leases
from core.jobs.leases import Claim
from core.jobs.service import confirm_cancelled, fail
from core.jobs.states import JobState
from core.telemetry import logger

log = logger(__name__)
POLL_SECONDS = 0.2
EXIT_STOPPED = 3  # worker.run_job ended because it was asked to

shutting_down = threading.Event()


def run(job_id: UUID, sessions: sessionmaker[Session], settings: Settings) -> None:
    """Claim the job and see it through in a child process; return quietly if it is not ours."""
    if shutting_down.is_set():
        return
    worker = f"{socket.gethostname()}:{os.getpid()}"
    with sessions.begin() as session:
        held = leases.claim(session, job_id, worker=worker, lease_seconds=settings.lease_seconds)
    if held is None:
        log.info("nothing to do: the job is not queued")
        return
    log.info("job started", attempt=held.attempt)
    log_path = settings.data_dir / "logs" / "jobs" / f"{job_id}.log"
    supervision = Supervision(held, sessions, settings, _start(held, log_path))
    supervision.watch()
    supervision.settle()


def _start(held: Claim, log_path: Path) -> subprocess.Popen[bytes]:
    log_path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "worker.run_job", str(held.job_id), str(held.token)]
    with log_path.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its whole group can be ended
        )


class Supervision:
    """The worker's side of a running job."""

    def __init__(
        self,
        held: Claim,
        sessions: sessionmaker[Session],
        settings: Settings,
        process: subprocess.Popen[bytes],
    ) -> None:
        self.held = held
        self._sessions = sessions
        self._settings = settings
        self._process = process
        self._started = time.monotonic()
        self._renewed = time.monotonic()
        self._asked_to_stop: float | None = None
        self._reason = ""

    def watch(self) -> None:
        """Return when the child has ended."""
        renew_every = self._settings.lease_seconds / 4
        while True:
            try:
                self._process.wait(POLL_SECONDS)
                return
            except subprocess.TimeoutExpired:
                pass  # it still runs
            if shutting_down.is_set():
                self._ask_to_stop("the worker shuts down")
            if time.monotonic() - self._started > self._settings.job_seconds:
                self._ask_to_stop("time limit")
            # Often while somebody may have cancelled, so that a cancel is felt in a second.
            if time.monotonic() - self._renewed > min(renew_every, 1.0):
                self._renew()
            self._kill_after_grace()

    def settle(self) -> None:
        """Write how the attempt ended, unless the child has written it."""
        self._end_group()
        code = self._process.returncode
        log.info("job process ended", exit_code=code)
        try:
            with self._sessions.begin() as session:
                self._settle(session, code)
        except OperationalError as error:
            log.error("the end was not written; the sweep will see to it", error=str(error))

    def _settle(self, session: Session, code: int) -> None:
        if confirm_cancelled(session, self.held.job_id, self.held.token):
            return
        if self._reason == "time limit":
            limit = f"{self._settings.job_seconds:g} seconds (FEWLABELS_JOB_SECONDS)"
            fail(
                session,
                self.held.job_id,
                self.held.token,
                code="JobTookTooLong",
                detail=f"the job ran for longer than the {limit} allowed",
            )
        elif code == EXIT_STOPPED and self._reason:
            leases.give_back(session, self.held)
        elif code != 0:
            leases.record_crash(session, self.held, _death(code))
        else:
            # 0 means that the child wrote the result; if it did not, this is a crash as well.
            leases.record_crash(session, self.held, "the process ended without a result")

    def _renew(self) -> None:
        self._renewed = time.monotonic()
        try:
            with self._sessions.begin() as session:
                state = leases.renew(session, self.held, lease_seconds=self._settings.lease_seconds)
        except LeaseLost:
            # Either the child has just written the end, or another worker took over.
            if self._reason != "the lease is lost":
                self._asked_to_stop = time.monotonic() - self._settings.cancel_grace_seconds + 2
                self._reason = "the lease is lost"
            return
        except OperationalError as error:
            log.warning("the lease was not renewed", error=str(error))
            return
        if state == JobState.CANCELLING:
            self._ask_to_stop("cancelled")

    def _ask_to_stop(self, reason: str) -> None:
        if self._asked_to_stop is None:
            log.info("asking the job to stop", reason=reason)
            self._asked_to_stop = time.monotonic()
            self._reason = reason
            self._process.send_signal(signal.SIGTERM)

    def _kill_after_grace(self) -> None:
        asked = self._asked_to_stop
        if asked is not None and time.monotonic() - asked > self._settings.cancel_grace_seconds:
            self._end_group()

    def _end_group(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # nobody of the group is left


def _death(code: int) -> str:
    if code >= 0:
        return f"the process ended with exit code {code}; its log has the reason"
    name = signal.Signals(-code).name
    if name == "SIGKILL":
        return (
            "the process was killed (SIGKILL), most often because the machine ran out of memory: "
            "try a smaller batch_size, image_size or encoder"
        )
    return f"the process died of {name}"
