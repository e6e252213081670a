"""A process that has loaded the libraries and waits for a job: they take longer than a first step.

The worker writes one line to its standard input; a worker that is gone closes it, and the process
ends. Until then it has no connection to a database and has not touched a GPU.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from core.config import load_settings

ROOM = "." * 600  # on the command line, for the words that are shown there later
STAT = Path("/proc/self/stat")
ARG_START, ARG_END = 48 - 3, 49 - 3  # fields of proc_pid_stat(5), counted behind the name


class ReadyProcess:
    """At most one process that waits, for the next job that this worker starts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Start one unless there is one; raises OSError when it cannot be started."""
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._forget(self._process)
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "worker.ready", ROOM],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # so that its whole group can be ended
                )

    def _forget(self, dead: subprocess.Popen[bytes]) -> None:
        assert dead.stdin is not None
        dead.stdin.close()
        self._process = None

    def take(self, words: Sequence[str], log_path: Path) -> subprocess.Popen[bytes] | None:
        """Give the waiting process its job; None when there is none.

        Args:
            words: The command line of the job's process behind the interpreter.
            log_path: Where its output goes from now on.
        """
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin is not None
        order = {"words": list(words), "log": str(log_path)}
        try:
            with process.stdin as line:
                line.write(json.dumps(order).encode() + b"\n")
        except BrokenPipeError:  # it has died: another one is started in its place
            process.wait()
            return None
        return process


def wait_for_order() -> list[str]:
    """The command line that the worker has sent; the output goes to the job's log from now on.

    Raises:
        SystemExit: The worker is gone.
    """
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    order = json.loads(line)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for handle in (log, nothing):
        os.close(handle)
    words = [str(word) for word in order["words"]]
    show([sys.executable, *words])
    return words


def show(words: Sequence[str]) -> None:
    """Show this command line in `ps` in place of the one that the process was started with."""
    with suppress(OSError, IndexError, ValueError):  # not Linux: it stays as it is
        fields = STAT.read_text().rpartition(")")[2].split()
        start, end = int(fields[ARG_START]), int(fields[ARG_END])
        room = end - start - 1
        line = b"\0".join(word.encode() for word in words)[:room].ljust(room)
        ctypes.memmove(start, line + b"\0", end - start)


def main() -> int:
    """Load what a job needs, wait, and be its process."""
    # The worker itself must not load these.
    from worker import run_job  # noqa: PLC0415

    if "cpu" in load_settings().devices_taken:
        from core.learning.augmentations import prepare  # noqa: PLC0415

        prepare()
    return run_job.start(wait_for_order()[2:])


if __name__ == "__main__":
    sys.exit(main())
