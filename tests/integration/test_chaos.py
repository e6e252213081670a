"""A short `make chaos`: some real jobs while what they run on is killed, stopped and cut."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.__main__ import chaos

JOBS, SEED = 5, 1


def test_every_promise_holds_while_everything_dies(tmp_path: Path) -> None:
    told, broken = chaos(
        tmp_path / "data", jobs=JOBS, seed=SEED, say=lambda _: None, kinds=("pretrain", "embed")
    )
    assert broken == []
    assert told["jobs"] >= JOBS
    assert sum(told["deeds"].values()) > 0
