"""When the job's process stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from worker.attempt import StopRequest


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_stops_when_asked() -> None:
    stop = StopRequest(os.getppid())
    assert not stop()
    os.kill(os.getpid(), signal.SIGINT)
    assert not stop(), "Ctrl-C is the worker's to answer"
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop()


@pytest.mark.usefixtures("handlers")
def test_stops_when_the_worker_was_gone_before_it_looked() -> None:
    assert StopRequest(os.getpid())()


def test_an_orphan_that_does_not_stop_is_ended_with_all_it_started() -> None:
    code = (
        "import os, subprocess, sys, time\n"
        "from worker.attempt import StopRequest\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "StopRequest(1 if os.getppid() != 1 else 2).watch_worker(grace_seconds=0.1)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,  # its end shows that nobody holds it open any more
        start_new_session=True,
        timeout=40,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL
    assert process.stdout
