"""Pre-training in two real processes, started, stopped and resumed as the worker does it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from numpy.typing import NDArray

from core.learning.launch import pretrain_in_processes
from core.learning.preprocessing import Preprocessing
from core.learning.progress import Progress
from core.learning.run import Run
from core.learning.simclr import Pretrained, SimCLRConfig
from core.learning.trainer import Stopped

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 1), dtype=np.uint8)
TARGETS = np.arange(64) % 5 - 1
PROBED = np.where(TARGETS < 0, np.arange(64) % 2, -1)
PREPROCESSING = Preprocessing(image_size=16, channels=1, mean=(0.5,), std=(0.3,))
CONFIG = SimCLRConfig(
    encoder="resnet10_tiny",
    image_size=16,
    channels=1,
    epochs=3,
    batch_size=32,
    micro_batch_size=8,
    projection_dim=16,
    warmup_epochs=0.0,
    use_labels=True,
    loss="supcon",
)
STEPS = 6


def launch(
    run: Run, images: NDArray[np.uint8] = IMAGES, config: SimCLRConfig = CONFIG
) -> Pretrained:
    return pretrain_in_processes(
        images,
        config,
        PREPROCESSING,
        run=replace(run, processes=2),
        targets_N=TARGETS[: len(images)],
        probe_targets_N=PROBED[: len(images)],
    )


def test_stopped_and_resumed_it_ends_as_if_it_had_not(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    whole: list[Progress] = []
    expected = launch(Run(on_step=whole.append), mapped)
    assert [progress.step for progress in whole] == list(range(1, STEPS + 1))
    assert expected.report["steps"] == STEPS
    assert expected.report["knn_images"] == (PROBED >= 0).sum()

    first: list[Progress] = []
    with pytest.raises(Stopped, match="stopped after step"):
        launch(
            Run(
                on_step=first.append,
                should_stop=lambda: True,
                checkpoint_dir=tmp_path / "run" / "checkpoint",
            )
        )
    assert 1 <= len(first) < STEPS
    second: list[Progress] = []
    found = launch(Run(on_step=second.append, checkpoint_dir=tmp_path / "run" / "checkpoint"))
    assert [p.step for p in first + second] == list(range(1, STEPS + 1))
    assert [p.loss for p in first + second] == pytest.approx([p.loss for p in whole], rel=1e-5)
    torch.testing.assert_close(found.encoder.state_dict(), expected.encoder.state_dict())
    torch.testing.assert_close(found.projection.state_dict(), expected.projection.state_dict())
    assert not found.encoder.training
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"checkpoint"}, "nothing of the processes is left"


def test_what_a_process_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="batch_size: found 32, there are only 20 images"):
        launch(Run(), IMAGES[:20])


def test_a_killed_process_ends_all() -> None:
    """As the kernel kills one when memory runs out."""

    before = set(psutil.Process().children(recursive=True))

    def kill_one(_: Progress) -> None:
        (torchrun,) = set(psutil.Process().children()) - before
        torchrun.children()[-1].kill()

    with pytest.raises(RuntimeError, match=r"killed \(SIGKILL\), most often because the machine"):
        launch(Run(on_step=kill_one), config=replace(CONFIG, epochs=10_000))
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.parametrize("processes", [1, 3])
def test_impossible_numbers_of_processes(processes: int) -> None:
    with pytest.raises(ValueError, match=f"processes: found {processes}, allowed are 2 and more"):
        pretrain_in_processes(IMAGES, CONFIG, PREPROCESSING, run=Run(processes=processes))
