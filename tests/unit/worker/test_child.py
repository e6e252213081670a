"""The worker's side of a job, over small real processes in place of training."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from sqlalchemy import text

from core.config import Settings
from core.db.session import make_engine, session_factory
from core.jobs import leases, sweeping
from core.jobs.leases import Claim
from core.jobs.service import cancel_job
from tests.jobs_database import PLENTY, JobsDatabase, jobs_database
from worker import child
from worker.child import Supervision
from worker.lease import LeaseKeeper

OBEYS = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(3)); "
IGNORES = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
READY = "print('ready', flush=True); "
SLEEP = "time.sleep(60)"
LEASE_SECONDS = 2.0


@pytest.fixture(scope="module")
def migrated(postgres_url: str) -> Iterator[JobsDatabase]:
    with jobs_database(postgres_url) as database:
        yield database


@pytest.fixture
def database(migrated: JobsDatabase) -> Iterator[JobsDatabase]:
    yield migrated
    child.shutting_down = child.ShutdownFlag()


class Attempt:
    """One claimed job with a process that stands in for its training."""

    def __init__(self, database: JobsDatabase, code: str, *, max_attempts: int = 1) -> None:
        self.database = database
        [self.job_id] = database.chain(max_attempts=max_attempts)
        claimed_at = time.monotonic()
        with database.sessions.begin() as session:
            held = leases.claim(session, self.job_id, worker="w", lease_seconds=LEASE_SECONDS)
        assert held is not None
        self.held: Claim = held
        self.claimed_at = claimed_at
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
        )
        if READY in code:
            assert self.process.stdout is not None
            assert self.process.stdout.readline()
        self.ended_at = 0.0

    def see_through(
        self, sessions: Any = None, *, meanwhile: Callable[[], object] = lambda: None, **given: Any
    ) -> float:
        """Watch and settle; the seconds that the process lived from now on."""
        sessions = sessions or self.database.sessions
        settings = Settings(
            lease_seconds=LEASE_SECONDS, **{"cancel_grace_seconds": 1.0, **given}, _env_file=None
        )
        keeper = LeaseKeeper(
            self.held, sessions, lease_seconds=LEASE_SECONDS, claimed_at=self.claimed_at
        )
        started = time.monotonic()
        thread = threading.Thread(target=meanwhile)
        thread.start()
        with keeper:
            supervision = Supervision(self.held, keeper, settings, self.process)
            supervision.watch()
            self.ended_at = time.monotonic()
            supervision.settle(self.database.sessions)
            supervision.end_group()
        thread.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.ended_at - started

    @property
    def state(self) -> str:
        return self.database.row(self.job_id).state

    def cancel(self) -> None:
        with self.database.sessions.begin() as session:
            cancel_job(session, self.database.caller, self.job_id)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; sys.exit(5)", "exit code 5; its log has the reason"),
        ("", "ended without a result"),
        ("import os; os.kill(os.getpid(), 9)", r"killed \(SIGKILL\), most often because"),
        ("import os; os.kill(os.getpid(), 11)", "died of SIGSEGV"),
        ("import os; os.kill(os.getpid(), 7)", "SIGBUS.*disk"),
        ("import os; os.kill(os.getpid(), 40)", "died of signal 40"),
        ("import sys; sys.exit(3)", "exit code 3"),
    ],
)
def test_a_process_that_dies_is_a_crash_with_words(
    database: JobsDatabase, code: str, words: str
) -> None:
    attempt = Attempt(database, code)
    attempt.see_through()
    row = database.row(attempt.job_id)
    assert (row.state, row.error_code) == ("crashed", "ProcessDied")
    assert re.search(words, row.error_detail or "")


def test_a_crash_with_attempts_left_is_queued_again(database: JobsDatabase) -> None:
    attempt = Attempt(database, "import sys; sys.exit(5)", max_attempts=2)
    attempt.see_through()
    row = database.row(attempt.job_id)
    assert (row.state, row.attempt) == ("queued", 1)


def test_the_lease_is_renewed_for_as_long_as_it_runs(database: JobsDatabase) -> None:
    attempt = Attempt(database, f"import time; time.sleep({LEASE_SECONDS * 2})")
    swept: list[int] = []

    def sweep_all_along() -> None:
        for _ in range(8):
            time.sleep(LEASE_SECONDS / 4)
            with database.sessions.begin() as session:
                swept.append(sweeping.sweep(session, hints_waiting=PLENTY)[0])

    assert attempt.see_through(meanwhile=sweep_all_along) > LEASE_SECONDS
    assert sum(swept) == 0


@pytest.mark.parametrize("obeys", [True, False])
def test_a_cancelled_job_is_asked_and_then_killed(database: JobsDatabase, obeys: bool) -> None:
    attempt = Attempt(database, (OBEYS if obeys else IGNORES) + READY + SLEEP)
    seconds = attempt.see_through(meanwhile=attempt.cancel, cancel_grace_seconds=2.0)
    assert attempt.state == "cancelled"
    assert (seconds < 2.0) == obeys
    assert attempt.process.returncode == (3 if obeys else -9)


@pytest.mark.parametrize("code", [OBEYS + READY + SLEEP, IGNORES + READY + SLEEP])
def test_a_job_that_takes_too_long_fails(database: JobsDatabase, code: str) -> None:
    attempt = Attempt(database, code, max_attempts=3)
    attempt.see_through(job_seconds=0.5)
    row = database.row(attempt.job_id)
    assert (row.state, row.error_code) == ("failed", "JobTookTooLong")
    assert "0.5 seconds (FEWLABELS_JOB_SECONDS)" in (row.error_detail or "")


@pytest.mark.parametrize(
    "code",
    [OBEYS + READY + SLEEP, IGNORES + READY + SLEEP, "import time; time.sleep(60)"],
    ids=["stops", "has to be killed", "dies of SIGTERM before it listens"],
)
def test_a_worker_that_shuts_down_hands_back_without_counting(
    database: JobsDatabase, code: str
) -> None:
    attempt = Attempt(database, code)
    child.shutting_down.set()
    attempt.see_through()
    row = database.row(attempt.job_id)
    assert (row.state, row.attempt) == ("queued", 0)


def test_what_it_started_ends_with_it(database: JobsDatabase) -> None:
    code = (
        "import subprocess, sys, time; "
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(p.pid, flush=True); time.sleep(60)"
    )
    attempt = Attempt(database, code)
    assert attempt.process.stdout is not None
    grandchild = psutil.Process(int(attempt.process.stdout.readline()))
    attempt.see_through(meanwhile=attempt.cancel)
    assert attempt.state == "cancelled"
    _wait_for_end(grandchild)


def _wait_for_end(process: psutil.Process) -> None:
    deadline = time.monotonic() + 5
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_job_taken_over_is_ended_and_not_written_to(database: JobsDatabase) -> None:
    attempt = Attempt(database, IGNORES + READY + SLEEP, max_attempts=3)

    def take_over() -> None:
        with database.sessions.begin() as session:
            leases.give_back(session, attempt.held)
        with database.sessions.begin() as session:
            assert leases.claim(session, attempt.job_id, worker="other", lease_seconds=30)

    assert attempt.see_through(meanwhile=take_over, cancel_grace_seconds=60.0) < 10
    row = database.row(attempt.job_id)
    assert (row.state, row.worker, row.fencing_token) == ("running", "other", 2)


@contextmanager
def hung_row(database: JobsDatabase, job_id: UUID) -> Iterator[None]:
    """A database that does not answer for this job."""
    with database.sessions.begin() as session:
        session.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": job_id})
        yield


def test_a_process_is_gone_before_its_lease_when_the_database_hangs(database: JobsDatabase) -> None:
    attempt = Attempt(database, IGNORES + READY + SLEEP)
    lease_ends = database.row(attempt.job_id).lease_expires_at
    with hung_row(database, attempt.job_id):
        thread = threading.Thread(target=attempt.see_through, kwargs={"cancel_grace_seconds": 60.0})
        thread.start()
        try:
            attempt.process.wait(LEASE_SECONDS * 2)
        finally:
            attempt.process.kill()
        with database.sessions.begin() as session:
            now = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    assert lease_ends is not None
    assert now < lease_ends
    thread.join()
    assert attempt.state == "queued", "handed back, not crashed"


def test_a_process_is_gone_before_its_lease_when_the_database_is_away(
    database: JobsDatabase,
) -> None:
    attempt = Attempt(database, OBEYS + READY + SLEEP)
    nowhere = make_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    attempt.see_through(session_factory(nowhere), cancel_grace_seconds=60.0)
    nowhere.dispose()
    assert attempt.ended_at - attempt.claimed_at < LEASE_SECONDS
    row = database.row(attempt.job_id)
    assert (row.state, row.attempt) == ("queued", 0)


def test_a_process_that_does_not_start_is_recorded(database: JobsDatabase, tmp_path: Path) -> None:
    [job_id] = database.chain(max_attempts=1)
    database.set(job_id, priority=100)  # before what other tests have left in the queue
    (tmp_path / "logs").write_text("a file where a folder should be")
    settings = Settings(data_dir=tmp_path, ready_process=False, _env_file=None)
    child.run(job_id, database.sessions, settings)
    row = database.row(job_id)
    assert (row.state, row.error_code) == ("crashed", "ProcessDied")
    assert "could not start" in (row.error_detail or "")


def test_a_worker_that_shuts_down_claims_nothing(database: JobsDatabase) -> None:
    [job_id] = database.chain()
    child.shutting_down.set()
    child.run(job_id, database.sessions, Settings(_env_file=None))
    assert database.states([job_id]) == ["queued"]
