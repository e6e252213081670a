"""A short `make chaos`: some real jobs while what they run on is killed, stopped and cut."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.__main__ import chaos

JOBS, SEED = 4, 1
FIRST = (
    "kill job",
    "kill worker",
    "kill postgres",
    "kill valkey",
    "stop worker-2",
    "kill s3",
    "kill api",
    "restart worker-3",
)


def test_every_promise_holds_while_everything_dies(tmp_path: Path) -> None:
    told, broken = chaos(
        tmp_path / "data",
        jobs=JOBS,
        seed=SEED,
        say=lambda _: None,
        kinds=("pretrain", "finetune"),
        script=FIRST,
    )
    assert broken == []
    assert told["jobs"] >= JOBS
    # One may find nothing to kill at its moment.
    assert told["kills"] >= sum(deed.startswith("kill") for deed in FIRST) - 2
