"""What a killed demo leaves is ended; what runs or is kept stays."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from core.demo.leftovers import KEPT_PREFIX, PREFIX, end_killed_demos
from core.embedded.folder import claimed_folder

START = """
import os, sys
from pathlib import Path
from core.embedded.folder import claimed_folder
from core.embedded.processes import Program
from core.embedded.supervisor import Supervisor
with claimed_folder(Path(sys.argv[1])) as folder, Supervisor(folder) as supervisor:
    supervisor.start(Program(name="sleep", command=["sleep", "600"], environment={}))
    os.kill(os.getpid(), 9)
"""


def test_only_what_a_killed_demo_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = [f"{PREFIX}killed", f"{PREFIX}running", f"{KEPT_PREFIX}x", f"{PREFIX}starting"]
    killed, running, kept, starting = (tmp_path / name for name in names)
    subprocess.run([sys.executable, "-c", START, str(killed)], check=False)
    (pid_file,) = (killed / "run").glob("sleep.json")
    assert pid_file.exists()
    for folder in (running, kept):
        with claimed_folder(folder):
            pass
    starting.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(kept)
    with claimed_folder(running):
        assert end_killed_demos() == [killed]
    assert not killed.exists()
    assert running.exists()
    assert kept.exists()
    assert starting.exists()
    assert subprocess.run(["pgrep", "-f", "^sleep 600$"], check=False).returncode == 1
