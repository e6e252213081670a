"""Children are started, watched, found again after a crash, and ended with all they started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from core.embedded.folder import DataFolder, claimed_folder
from core.embedded.processes import Child, Program, end_leftovers
from core.embedded.supervisor import StopRequested, Supervisor
from core.errors import EmbeddedServerFailed

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                         start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    with claimed_folder(tmp_path / "data") as folder:
        yield folder


def program(code: str, *, name: str = "probe", grace_seconds: float = 5.0) -> Program:
    command = [sys.executable, "-c", code]
    return Program(name=name, command=command, environment={}, grace_seconds=grace_seconds)


def wait_until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_output_goes_to_a_private_log_and_the_record_ends_with_the_child(
    folder: DataFolder,
) -> None:
    child = Child(program("print('first'); print('last')"), folder, position=0)
    wait_until(lambda: child.exit_code() is not None)
    assert child.exit_code() == 0
    assert child.last_line() == "last"
    assert child.log.stat().st_mode & 0o077 == 0
    assert (folder.run / "probe.json").exists()
    child.end()
    assert not (folder.run / "probe.json").exists()


def test_a_child_that_ignores_the_signal_is_killed_with_what_it_started(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.embedded.processes.ORPHAN_SECONDS", 0.2)
    child = Child(program(STUBBORN, grace_seconds=0.2), folder, position=0)
    wait_until(lambda: child.log.read_text().strip() != "")
    grandchild = int(child.log.read_text())
    assert runs(grandchild)
    child.end()
    assert child.exit_code() == -9
    assert not runs(grandchild)


def test_leftovers_are_ended_once(folder: DataFolder) -> None:
    child = Child(program("import time; time.sleep(60)"), folder, position=0)
    assert end_leftovers(folder) == ["probe"]
    assert child.exit_code() == -15
    assert end_leftovers(folder) == []


def test_a_reused_pid_is_left_alone(folder: DataFolder) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (folder.run / "probe.json").write_text(
            f'{{"name": "probe", "pid": {stranger.pid}, "created": {time.time() - 3600}, '
            '"position": 0, "stop_signal": 9, "grace_seconds": 1}'
        )
        assert end_leftovers(folder) == []
        assert stranger.poll() is None
        assert not (folder.run / "probe.json").exists()
    finally:
        stranger.kill()
        stranger.wait()


def test_a_record_that_cannot_be_read_is_dropped(folder: DataFolder) -> None:
    (folder.run / "torn.json").write_text('{"name": "to')
    (folder.run / "other.json").write_text('{"name": "of another version"}')
    assert end_leftovers(folder) == []
    assert list(folder.run.glob("*.json")) == []


def test_children_are_ended_in_the_reverse_order(folder: DataFolder, tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    code = """
import signal, sys, time
def stop(*_):
    with open({ended!r}, "a") as file: file.write({name!r} + " ")
    sys.exit()
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""
    with Supervisor(folder) as supervisor:
        for name in ("one", "two", "three"):
            text = code.format(ended=str(ended), name=name)
            child = supervisor.start(program(text, name=name))
            supervisor.wait(child, lambda log=child.log: "ready" in log.read_text(), seconds=10)  # type: ignore[misc]
    assert ended.read_text().split() == ["three", "two", "one"]


def test_a_dead_child_is_started_again_and_told(folder: DataFolder) -> None:
    told: list[str] = []
    with Supervisor(folder, tell=told.append) as supervisor:
        child = supervisor.start(program("import time; print('up', flush=True); time.sleep(60)"))
        supervisor.wait(child, lambda: "up" in child.log.read_text(), seconds=10)
        psutil.Process(child.pid).kill()

        def again() -> bool:
            supervisor.step()
            return child.log.read_text().split() == ["up", "up"]

        wait_until(again)
    assert told == ["probe ended (exit code -9), starting it again in 0.5 s"]


def test_a_child_that_keeps_dying_is_given_up(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.embedded.supervisor.FIRST_DELAY_SECONDS", 0.001)
    told: list[str] = []

    def watch(supervisor: Supervisor) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            supervisor.step()
            time.sleep(0.01)

    with Supervisor(folder, tell=told.append) as supervisor:
        supervisor.start(program("raise SystemExit(3)"))
        with pytest.raises(EmbeddedServerFailed, match=r"5 times in a row \(exit code 3\).*\.log"):
            watch(supervisor)
    assert len(told) == 4


def test_a_failed_start_names_the_log_and_its_last_line(folder: DataFolder) -> None:
    with Supervisor(folder) as supervisor:
        child = supervisor.start(program("raise SystemExit('no such option')"))
        with pytest.raises(EmbeddedServerFailed, match=r"exit code 1\): no such option"):
            supervisor.wait(child, lambda: False, seconds=10)


def test_a_program_that_does_not_exist_is_one_sentence(folder: DataFolder) -> None:
    missing = Program(name="probe", command=["/nowhere/probe"], environment={})
    with pytest.raises(EmbeddedServerFailed, match="probe cannot be started"):
        Child(missing, folder, position=0)


def test_a_wait_ends_when_somebody_asks_to_stop(folder: DataFolder) -> None:
    with Supervisor(folder, stop_requested=lambda: True) as supervisor:
        child = supervisor.start(program("import time; time.sleep(60)"))
        with pytest.raises(StopRequested):
            supervisor.wait(child, lambda: False, seconds=10)
    assert child.exit_code() == -15


def test_one_instance_at_a_time_holds_a_folder(tmp_path: Path) -> None:
    with (
        claimed_folder(tmp_path),
        pytest.raises(EmbeddedServerFailed, match=rf"process {os.getpid()}\) is using"),
        claimed_folder(tmp_path),
    ):
        pytest.fail("two instances hold the folder")
    with claimed_folder(tmp_path):
        pass


def test_children_do_not_hold_the_folder(tmp_path: Path) -> None:
    with claimed_folder(tmp_path) as folder:
        child = Child(program("import time; time.sleep(60)"), folder, position=0)
    try:
        with claimed_folder(tmp_path):
            assert child.exit_code() is None
    finally:
        child.end()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(EmbeddedServerFailed, match="cannot be written"),
        claimed_folder(tmp_path / "file" / "data"),
    ):
        pytest.fail("a folder inside a file")
