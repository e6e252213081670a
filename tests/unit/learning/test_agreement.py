"""Two real processes (gloo) agree on numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from core.learning.agreement import mean_of_all, of_first
from core.learning.distributed import world

SIZE = 2


def of_one_process(folder: Path) -> None:
    """What every process does; the assertions are the parent's."""
    torch.distributed.init_process_group("gloo")
    rank = world().rank
    found = {
        "number": of_first(7 + rank),
        "nothing": of_first(None if rank == 0 else 5),
        "zero": of_first(rank),
        "mean": mean_of_all(torch.tensor([1.0 + rank, 10.0 * rank])).tolist(),
    }
    (folder / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def test_two_processes(tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={SIZE}"]
    done = subprocess.run(
        [sys.executable, *launcher, __file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[3],
        env={"PYTHONPATH": ".", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    expected = {"number": 7, "nothing": None, "zero": 0, "mean": [1.5, 5.0]}
    for rank in range(SIZE):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == expected


def test_one_process_agrees_with_itself() -> None:
    assert of_first(3) == 3
    assert of_first(None) is None
    assert mean_of_all(torch.tensor([2.0, 4.0])).tolist() == [2.0, 4.0]


if __name__ == "__main__":
    of_one_process(Path(sys.argv[1]))
