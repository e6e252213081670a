"""Out-of-memory kills are told from other deaths by the kernel's own count, over a real kill."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from worker.memory import OOM_SCORE, OomWatch, find_counter

LIMIT_BYTES = 64 * 2**20
EATS_MEMORY = "held = []\nwhile True: held.append(bytearray(2**20))"
JOINS = "import os, pathlib\npathlib.Path({group!r}, 'cgroup.procs').write_text(str(os.getpid()))\n"


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with little memory."""
    path = _new_group()
    if path is None:
        pytest.skip("needs the right to make a control group with a memory limit (root)")
    yield path
    path.rmdir()


def _new_group() -> Path | None:
    name = f"fewlabels-{uuid4().hex}"
    for root, limit in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        with suppress(OSError):
            (root / name).mkdir()
            try:
                (root / name / limit).write_text(str(LIMIT_BYTES))
                with suppress(OSError):  # without swap accounting there is none to limit
                    (root / name / "memory.memsw.limit_in_bytes").write_text(str(LIMIT_BYTES))
            except OSError:
                (root / name).rmdir()
                raise
            return root / name
    return None


def counter_of(group: Path) -> Path:
    names = ("memory.oom_control", "memory.events")
    return next(group / name for name in names if (group / name).exists())


def run_in(group: Path, code: str) -> int:
    program = JOINS.format(group=str(group)) + code
    return subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode


def test_a_kill_for_want_of_memory_is_seen_and_another_is_not(group: Path) -> None:
    watch = OomWatch(counter_of(group))
    assert run_in(group, "import signal; os.kill(os.getpid(), signal.SIGKILL)") == -9
    assert not watch.has_killed()
    assert run_in(group, EATS_MEMORY) == -9
    assert watch.has_killed()
    watch.look()
    assert watch.has_killed(), "remembered for as long as the process may take to end"


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ("5:memory:/docker/abc\n1:cpu:/x\n", "memory/docker/abc/memory.oom_control"),
        ("5:cpu,memory:/docker/abc\n", "memory/memory.oom_control"),
        ("0::/kubepods/pod1\n", "kubepods/pod1/memory.events"),
        ("0::/kubepods/pod1\n", "memory.events"),
    ],
)
def test_the_count_is_found_in_the_own_group(tmp_path: Path, lines: str, place: str) -> None:
    own, machine = tmp_path / "own", tmp_path / "vmstat"
    own.write_text(lines)
    machine.write_text("pgfault 1\noom_kill 3\n")
    counter = tmp_path / "groups" / place
    counter.parent.mkdir(parents=True)
    counter.write_text("low 0\noom 0\noom_kill 0\noom_group_kill 0\n")
    assert find_counter(tmp_path / "groups", own, machine) == counter
    counter.write_text("oom_kill_disable 0\nunder_oom 0\n")
    assert find_counter(tmp_path / "groups", own, machine) == machine, "an old kernel's group"
    machine.unlink()
    assert find_counter(tmp_path / "groups", own, machine) is None


def test_a_group_that_is_taken_away_tells_nothing(tmp_path: Path) -> None:
    counter = tmp_path / "memory.events"
    counter.write_text("oom_kill 4\n")
    watch = OomWatch(counter)
    counter.unlink()
    assert not watch.has_killed()


def test_the_job_offers_itself_to_the_kernel_first() -> None:
    if not OOM_SCORE.exists():
        pytest.skip("needs Linux")
    code = "from worker.memory import go_first, OOM_SCORE; go_first(); print(OOM_SCORE.read_text())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(said.stdout) >= 500
