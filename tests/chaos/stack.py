"""The real stack, with three workers on machines of their own, whose dead are started again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from pydantic import SecretStr
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, sessionmaker

from core.config import Settings, child_environment
from core.db.migrating import upgrade
from core.db.session import make_engine, session_factory
from core.embedded.commands import worker_command
from core.embedded.folder import claimed_folder
from core.embedded.processes import Program
from core.embedded.servers import with_servers
from core.embedded.service import base_url, service_programs
from core.embedded.supervisor import Supervisor
from core.embedded.valkey import free_port
from core.errors import StoreUnavailable
from core.storage.store import BlobStore, open_store
from tests.conftest import RCLONE, S3Server
from tests.soak.service import is_ready

START_SECONDS = 120.0
OTHER_WORKERS = ("worker-2", "worker-3")
WORKERS = ("worker", *OTHER_WORKERS)


@dataclass
class Stack:
    """Every process by its name; a name outlives the process."""

    settings: Settings
    database: Engine
    sessions: sessionmaker[Session]
    store: BlobStore
    url: str
    supervisor: Supervisor
    lock: threading.Lock = field(default_factory=threading.Lock)

    def process(self, name: str) -> psutil.Process | None:
        """The process that has the name now; None while it is being started again."""
        with self.lock, suppress(psutil.NoSuchProcess):
            for child in self.supervisor.children():
                if child.program.name == name and child.exit_code() is None:
                    return psutil.Process(child.pid)
        return None

    def job_processes(self) -> list[psutil.Process]:
        """The processes of jobs, on all machines."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            command, environment = process.info["cmdline"] or [], process.info["environ"] or {}
            here = environment.get("FEWLABELS_DATABASE_URL") == self._database
            if "worker.run_job" in command and here:
                found.append(process)
        return found

    @property
    def _database(self) -> str:
        assert self.settings.database_url is not None
        return self.settings.database_url.get_secret_value()


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """All of it, ready to be ordered from; what dies is started again until the block ends."""
    with claimed_folder(folder) as claimed:
        tireless = Supervisor(claimed, quick_deaths=10**9, tell=lambda _: None)
        with tireless as supervisor:
            stack = _start(folder, supervisor)
            ended = threading.Event()
            keeper = threading.Thread(target=_keep, args=(stack, ended), name="keeper")
            keeper.start()
            try:
                yield stack
            finally:
                ended.set()
                keeper.join()
                _wake(stack)
                stack.database.dispose()


def _start(folder: Path, supervisor: Supervisor) -> Stack:
    s3 = S3Server(folder / "s3")
    s3.folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        _env_file=None,
        data_dir=folder,
        port=free_port("127.0.0.1"),
        blob_url=SecretStr(f"{s3.host}/chaos?secure=false"),
        device="cpu",
        requests_per_second=0,
        max_unfinished_jobs=0,
        export_onnx=False,
        lease_seconds=6,
        sweep_seconds=1,
        checkpoint_seconds=1,
        progress_seconds=0,  # every step leaves a trace, so that none can be lost unseen
        cancel_grace_seconds=4,
        retry_pause_seconds=0,  # it doubles, and jobs are killed ten times here
        job_max_attempts=1000,  # what is killed here is no fault of the job
        log_level="info",
    )
    settings = with_servers(settings, supervisor, tell=lambda _: None)
    supervisor.start(_s3_program(s3))
    upgrade(settings.sqlalchemy_url)
    store = open_store(settings.store_url)
    _until(lambda: _prepared(store), "the object store")
    for program in (*service_programs(settings, supervisor.folder), *_other_workers(settings)):
        supervisor.start(_with_one_thread(program))
    database = make_engine(settings.sqlalchemy_url)
    sessions = session_factory(database)
    stack = Stack(settings, database, sessions, store, base_url(settings), supervisor)
    _until(lambda: is_ready(stack.url), "the API")
    return stack


def _s3_program(s3: S3Server) -> Program:
    address = ["--addr", f"127.0.0.1:{s3.port}", "--config", ""]
    return Program(
        name="s3",
        command=[str(RCLONE), "serve", "s3", *address, str(s3.folder)],
        environment={**os.environ, "RCLONE_AUTH_KEY": f'"{s3.access},{s3.secret}"'},
    )


def _other_workers(settings: Settings) -> Iterator[Program]:
    for name in OTHER_WORKERS:
        own = settings.model_copy(update={"data_dir": settings.data_dir / name})
        (own.data_dir / "run").mkdir(parents=True, exist_ok=True)
        yield Program(
            name=name,
            command=worker_command(own),
            environment=child_environment(own),
            grace_seconds=own.cancel_grace_seconds + 5,
        )


def _with_one_thread(program: Program) -> Program:
    # The same sums in the same order, however many jobs there are at a time.
    environment = {**program.environment, "OMP_NUM_THREADS": "1"}
    return Program(
        name=program.name,
        command=program.command,
        environment=environment,
        stop_signal=program.stop_signal,
        grace_seconds=program.grace_seconds,
    )


def _keep(stack: Stack, ended: threading.Event) -> None:
    while not ended.wait(0.1):
        with stack.lock:
            stack.supervisor.step()


def _wake(stack: Stack) -> None:
    """What was stopped could not be ended."""
    for child in stack.supervisor.children():
        with suppress(psutil.NoSuchProcess):
            psutil.Process(child.pid).resume()
    for process in stack.job_processes():
        with suppress(psutil.NoSuchProcess):
            process.resume()


def _prepared(store: BlobStore) -> bool:
    try:
        store.prepare()
    except StoreUnavailable:
        return False
    return True


def _until(there: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not there():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not start within {START_SECONDS:g} seconds")
        time.sleep(0.1)
