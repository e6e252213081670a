"""Child processes that are recorded on disk, so that the next start finds what a crash left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from core.embedded.folder import DataFolder
from core.errors import EmbeddedServerFailed
from core.storage.files import replacing

POLL_SECONDS = 0.05
ORPHAN_SECONDS = 3.0
LOG_BYTES = 16 * 2**20
# The kernel counts a start in ticks since boot; the clock it is converted with may be stepped.
CREATED_TOLERANCE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """What to run, and how to ask it to stop."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(repr=False)
    stop_signal: int = signal.SIGTERM
    grace_seconds: float = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One running child as written to run/NAME.json; the time tells a reused pid."""

    name: str
    pid: int
    created: float
    position: int
    stop_signal: int
    grace_seconds: float


class Child:
    """A running program: own session, output to its log file, recorded on disk."""

    def __init__(self, program: Program, folder: DataFolder, *, position: int) -> None:
        """Start the program.

        Raises:
            EmbeddedServerFailed: It cannot be executed.
        """
        self.program = program
        self.log = folder.logs / f"{program.name}.log"
        self.started = time.monotonic()
        self._record = folder.run / f"{program.name}.json"
        _turn_over(self.log)
        try:
            self._process = self._spawn(folder)
        except OSError as error:
            raise EmbeddedServerFailed(f"{program.name} cannot be started: {error}") from error
        self._handle = psutil.Process(self._process.pid)
        self._write_record(position)

    def _spawn(self, folder: DataFolder) -> subprocess.Popen[bytes]:
        with open(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            return subprocess.Popen(
                self.program.command,
                env=self.program.environment,
                # Not the caller's folder: its files must not shadow the packages of the service.
                cwd=folder.run,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _write_record(self, position: int) -> None:
        record = Record(
            name=self.program.name,
            pid=self._process.pid,
            created=self._handle.create_time(),
            position=position,
            stop_signal=int(self.program.stop_signal),
            grace_seconds=self.program.grace_seconds,
        )
        with replacing(self._record) as file:
            file.write(json.dumps(asdict(record)).encode())

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative is the signal that ended it."""
        return self._process.poll()

    def end(self) -> None:
        """Stop it and whatever it started; afterwards nothing of it runs."""
        end(self._handle, self.program.stop_signal, grace_seconds=self.program.grace_seconds)
        self._process.wait()
        self._record.unlink(missing_ok=True)

    def last_line(self) -> str:
        """The last line it wrote, for a message."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing was written"


def end_leftovers(folder: DataFolder) -> list[str]:
    """End the recorded processes of an instance that died, last started first; their names.

    Raises:
        EmbeddedServerFailed: One of them cannot be ended.
    """
    records = sorted(_records(folder), key=lambda record: -record.position)
    ended = []
    for record in records:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(record.pid)
            if abs(process.create_time() - record.created) <= CREATED_TOLERANCE_SECONDS:
                end(process, record.stop_signal, grace_seconds=record.grace_seconds)
                ended.append(record.name)
        (folder.run / f"{record.name}.json").unlink(missing_ok=True)
    return ended


def end(process: psutil.Process, stop_signal: int, *, grace_seconds: float) -> None:
    """Signal a process, kill it when the grace is over, then end what it leaves behind.

    Raises:
        EmbeddedServerFailed: It belongs to somebody else.
    """
    try:
        family = _descendants(process)
        with suppress(psutil.NoSuchProcess):
            process.send_signal(stop_signal)
        if not _gone_within([process], grace_seconds):
            family += _descendants(process)
            _kill([process])
        if not _gone_within(family, ORPHAN_SECONDS):
            _kill(family)
    except psutil.AccessDenied as error:
        raise EmbeddedServerFailed(
            f"process {process.pid} of an earlier start runs as another user; end it first"
        ) from error


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


def _gone_within(processes: Iterable[psutil.Process], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(_runs, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _gone_within(processes, ORPHAN_SECONDS)


def _runs(process: psutil.Process) -> bool:
    # A zombie has ended; when nobody collects it (a container's first process may not), it stays.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _records(folder: DataFolder) -> list[Record]:
    found = []
    for path in folder.run.glob("*.json"):
        try:
            found.append(Record(**json.loads(path.read_bytes())))
        except (ValueError, TypeError):
            path.unlink(missing_ok=True)  # of another version; it cannot be acted upon
    return found


def _turn_over(log: Path) -> None:
    with suppress(FileNotFoundError):
        if log.stat().st_size > LOG_BYTES:
            os.replace(log, log.with_suffix(".log.1"))
