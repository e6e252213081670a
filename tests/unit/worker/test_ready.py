"""A process that waits is given a job as if started with it, or ends with its worker."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from worker.ready import ReadyProcess

WORDS = ["-m", "worker.run_job", str(uuid4()), "1", "1", '{"no": "origin"}']
PARENT = """
import sys
from worker.ready import ReadyProcess
ready = ReadyProcess()
ready.prepare()
ready.prepare()
print(ready._process.pid, flush=True)
sys.stdin.readline()
"""


def test_it_takes_the_command_line_and_writes_to_the_log_of_its_job(tmp_path: Path) -> None:
    ready, log = ReadyProcess(), tmp_path / "job.log"
    assert ready.take(WORDS, log) is None, "there is none"
    ready.prepare()
    process = ready.take(WORDS, log)
    assert process is not None
    assert ready.take(WORDS, log) is None, "one job each"
    shown: list[str] = []
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):  # it may end at this moment
            shown = psutil.Process(process.pid).cmdline() or shown
        time.sleep(0.01)
    assert process.returncode == 1
    assert "from_argument" in log.read_text(), "its own words, of an origin that is none"
    if sys.platform == "linux":
        assert [word.rstrip() for word in shown[1:]] == WORDS


def test_one_that_has_died_is_not_taken_and_another_one_is_made(tmp_path: Path) -> None:
    ready = ReadyProcess()
    for _ in range(2):
        ready.prepare()
        assert ready._process is not None
        assert ready._process.poll() is None
        ready._process.kill()
        ready._process.wait(10)
    assert ready.take(WORDS, tmp_path / "job.log") is None


def test_it_ends_with_its_worker() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        waiting = psutil.Process(int(worker.stdout.readline()))
        worker.kill()
    try:
        waiting.wait(60)
    except psutil.TimeoutExpired:
        waiting.kill()
        pytest.fail("it waits for a worker that is gone")
