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

from sqlalchemy.orm import Session, sessionmaker

from core import tracing
from core.config import Settings
from core.jobs import leases
from core.jobs.leases import Claim, Death
from core.jobs.origin import Origin, origin_of
from core.jobs.outages import DATABASE_AWAY, outlast
from core.jobs.service import confirm_cancelled, fail
from core.telemetry import bound, logger
from worker.death import death_of
from worker.lease import LeaseKeeper
from worker.logs import LogShipper
from worker.memory import OomWatch
from worker.metrics import ATTEMPT_SECONDS, note_end
from worker.ready import ReadyProcess

log = logger(__name__)
POLL_SECONDS = 0.2
EXIT_STOPPED = 3  # worker.run_job ended because it was asked to
EXIT_AWAY = 4  # worker.run_job could not reach the database or the blob store for too long
# A lease that is not renewed: when to ask the job to stop, and when to end it, so that it is
# gone before another worker may take it.
ASK_REMAINING, END_REMAINING = 0.4, 0.1
LOST_SECONDS = 2.0  # to end by itself, for a process that has just written the job's end
SETTLE_SECONDS = 60.0
AWAY_SECONDS = 1.0
IDLE_SECONDS = 1.0

SHUTDOWN, TIME_LIMIT, CANCELLED = "the worker shuts down", "time limit", "cancelled"
LOST, SILENT = "the lease is lost", "the lease cannot be renewed"


class ShutdownFlag:
    """Whether this worker shuts down.

    Not a threading.Event: its lock is not safe to take in a signal handler.
    """

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        """The worker was asked to stop."""
        self._set = True

    def is_set(self) -> bool:
        """Whether it was."""
        return self._set


class Busy:
    """How many jobs this worker runs; a block each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1

    def is_empty(self) -> bool:
        """Whether it runs none."""
        return self._count == 0


shutting_down = ShutdownFlag()
busy = Busy()
ready = ReadyProcess()


def run(hinted: UUID, sessions: sessionmaker[Session], settings: Settings) -> None:
    """Claim the job whose turn it is and see it through; return quietly if there is none."""
    if shutting_down.is_set():
        return
    worker = f"{socket.gethostname()}:{os.getpid()}"
    claimed_at, claimed_ns = time.monotonic(), time.time_ns()
    with sessions.begin() as session:
        held = leases.claim_next(
            session,
            hinted,
            devices=settings.devices_taken,
            worker=worker,
            lease_seconds=settings.lease_seconds,
            most_running=settings.max_running_jobs,
        )
        origin = None if held is None else origin_of(session, held.job_id)
    if held is None or origin is None:
        log.info("nothing to do: no job has its turn", hinted=str(hinted))
        return
    with bound(**origin.log_ids()), origin.span("run job", since=claimed_ns) as attempt:
        with tracing.span("claim", since=claimed_ns):
            pass  # what it was is known only now
        attempt.note(attempt=held.attempt, worker=worker)
        log.info("job started", attempt=held.attempt)
        with busy:
            death = _see_through(held, origin, sessions, settings, claimed_at=claimed_at)
        if death:
            attempt.fail(death)
    prepare_when_idle(settings)


def prepare_when_idle(settings: Settings) -> None:
    """Have a process ready for the next job, unless that one begins at once."""

    def prepare() -> None:
        if busy.is_empty() and not shutting_down.is_set():
            try:
                ready.prepare()
            except OSError as error:
                log.warning("no process was made ready", error=str(error))

    if settings.ready_process:
        timer = threading.Timer(IDLE_SECONDS, prepare)
        timer.daemon = True
        timer.start()


def _see_through(
    held: Claim,
    origin: Origin,
    sessions: sessionmaker[Session],
    settings: Settings,
    *,
    claimed_at: float,
) -> str:
    """How the job's process died; nothing when it ended as it should."""
    log_path = settings.data_dir / "logs" / "jobs" / f"{held.job_id}.log"
    lines = LogShipper(held, log_path, sessions, settings)
    try:
        process = _start(held, origin, log_path)
    except OSError as error:
        log.error("the job's process did not start", error=str(error))
        death = Death(f"the worker could not start the job's process: {error}")
        pause = settings.retry_pause_seconds
        with sessions.begin() as session:
            leases.record_crash(session, held, death, pause_seconds=pause)
        return death.detail
    seconds = settings.lease_seconds
    keeper = LeaseKeeper(held, sessions, lease_seconds=seconds, claimed_at=claimed_at)
    with keeper, lines:
        supervision = Supervision(held, keeper, settings, process)
        try:
            supervision.watch()
        finally:
            supervision.end_group()  # also what the child started and left behind
            process.wait()
        lines.bring_rest()  # before the job may go to another worker
        supervision.settle(sessions)
    return supervision.death()


def _start(held: Claim, origin: Origin, log_path: Path) -> subprocess.Popen[bytes]:
    log_path.parent.mkdir(parents=True, exist_ok=True)
    ids = [str(held.job_id), str(held.token), str(os.getpid()), origin.as_argument()]
    words = ["-m", "worker.run_job", *ids]
    if waiting := ready.take(words, log_path):
        return waiting
    with log_path.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *words],
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
        lease: LeaseKeeper,
        settings: Settings,
        process: subprocess.Popen[bytes],
    ) -> None:
        self.held = held
        self._lease = lease
        self._settings = settings
        self._process = process
        self._started = time.monotonic()
        self._end_at: float | None = None
        self._reason = ""
        self._oom = OomWatch()
        self._killed_for_memory = False

    def watch(self) -> None:
        """Return when the child has ended; no database is asked, so nothing holds this up."""
        while True:
            try:
                code = self._process.wait(POLL_SECONDS)
                # Asked at once: what is killed later has nothing to do with it.
                self._killed_for_memory = code == -signal.SIGKILL and self._oom.has_killed()
                return
            except subprocess.TimeoutExpired:
                self._oom.look()  # it still runs
            if reason := self._reason_to_stop():
                self._ask_to_stop(reason)
            late = self._end_at is not None and time.monotonic() > self._end_at
            if late or self._lease.remaining() < END_REMAINING:
                self.end_group()

    def settle(self, sessions: sessionmaker[Session]) -> None:
        """Write how the attempt ended, unless the child has written it."""
        code = self._process.returncode
        log.info("job process ended", exit_code=code, asked=self._reason or None)
        note_end(code, self._reason, lost=self._reason == LOST)
        ATTEMPT_SECONDS.observe(time.monotonic() - self._started)

        def write() -> None:
            with sessions.begin() as session:
                self._settle(session, code)

        try:
            outlast(write, seconds=SETTLE_SECONDS, give_up=shutting_down.is_set)
        except DATABASE_AWAY as error:
            log.error("the end was not written; the sweep will see to it", error=str(error))

    def death(self) -> str:
        """How the process died, where neither it nor the worker ended it on purpose."""
        code, reason = self._process.returncode, self._reason
        on_purpose = code in {0, EXIT_STOPPED} or reason not in {"", TIME_LIMIT}
        return "" if on_purpose else self._death().detail

    def _death(self) -> Death:
        return death_of(self._process.returncode, for_memory=self._killed_for_memory)

    def end_group(self) -> None:
        """Kill the child and all that it started."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # nobody of the group is left

    def _settle(self, session: Session, code: int) -> None:
        if confirm_cancelled(session, self.held.job_id, self.held.token):
            return
        pause = self._settings.retry_pause_seconds
        if self._reason == TIME_LIMIT:
            limit = f"{self._settings.job_seconds:g} seconds (FEWLABELS_JOB_SECONDS)"
            fail(
                session,
                self.held.job_id,
                self.held.token,
                code="JobTookTooLong",
                detail=f"the job ran for longer than the {limit} allowed",
            )
        elif code != 0 and (self._reason in {SHUTDOWN, SILENT} or shutting_down.is_set()):
            # Whether it stopped by itself or had to be killed: it was not the job's fault.
            leases.give_back(session, self.held)
        elif code == EXIT_AWAY:
            # Not its fault either: it waits for the server without using up its attempts.
            leases.give_back(session, self.held, pause_seconds=max(AWAY_SECONDS, pause))
        else:
            # 0 means that the child wrote the result; if it did not, this is a crash as well.
            leases.record_crash(session, self.held, self._death(), pause_seconds=pause)

    def _reason_to_stop(self) -> str:
        reasons = {
            LOST: self._lease.lost,
            CANCELLED: self._lease.cancelled,
            SHUTDOWN: shutting_down.is_set(),
            TIME_LIMIT: time.monotonic() - self._started > self._settings.job_seconds,
            SILENT: self._lease.remaining() < ASK_REMAINING,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    def _ask_to_stop(self, reason: str) -> None:
        grace = LOST_SECONDS if reason == LOST else self._settings.cancel_grace_seconds
        end_at = time.monotonic() + grace
        if self._end_at is None:
            log.info("asking the job to stop", reason=reason)
            self._reason = reason
            self._end_at = end_at
            self._process.send_signal(signal.SIGTERM)
        elif reason == LOST:
            self._end_at = min(self._end_at, end_at)
