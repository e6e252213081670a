"""A run that was interrupted ends with the same weights, bit for bit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from core.learning.augmentations import AugmentationConfig
from core.learning.checkpoint import Checkpoint, TrainingState
from core.learning.encoders import build_encoder
from core.learning.finetuning import FinetuneConfig, finetune
from core.learning.preprocessing import Preprocessing
from core.learning.run import Run
from core.learning.simclr import SimCLRConfig, pretrain
from core.learning.trainer import Progress, Stopped

Bars = tuple[NDArray[np.uint8], NDArray[np.int64]]

CONFIG = SimCLRConfig(
    encoder="resnet10_tiny",
    image_size=8,
    channels=1,
    epochs=3,
    batch_size=50,
    hidden_dim=32,
    projection_dim=16,
    augmentation=AugmentationConfig(crop_area=(0.5, 1.0), contrast=0.4, jitter=0.8, blur=0.5),
)


class StopAfter:
    """Asks to stop once this many steps are done."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def differences(one: nn.Module, other: nn.Module) -> list[str]:
    others = other.state_dict()
    return [name for name, v in one.state_dict().items() if not torch.equal(v, others[name])]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize("steps", [1, 6])
def test_resumed_run_equals_undisturbed_one(
    bars: Bars, preprocessing: Preprocessing, tmp_path: Path, optimizer: str, steps: int
) -> None:
    config = dataclasses.replace(CONFIG, optimizer=optimizer, learning_rate=0.01)
    undisturbed = pretrain(bars[0], config, preprocessing, run=Run())
    with pytest.raises(Stopped, match=f"after step {steps} of 12"):
        pretrain(
            bars[0],
            config,
            preprocessing,
            run=Run(checkpoint_dir=tmp_path, should_stop=StopAfter(steps)),
        )
    seen: list[Progress] = []
    torch.manual_seed(99)
    resumed = pretrain(
        bars[0],
        config,
        preprocessing,
        run=Run(checkpoint_dir=tmp_path, on_step=seen.append),
    )
    assert seen[0].step == steps + 1
    assert differences(undisturbed, resumed) == []


def test_resumed_finetuning_equals_undisturbed_one(
    bars: Bars, preprocessing: Preprocessing, tmp_path: Path
) -> None:
    config = FinetuneConfig(train="full", epochs=4, batch_size=16, augmentation=CONFIG.augmentation)
    torch.manual_seed(0)
    encoder = build_encoder("mobilenet_v3_small", image_size=8, channels=1)

    def run(settings: Run) -> nn.Module:
        return finetune(
            bars[0][:40],
            bars[1][:40],
            encoder,
            config,
            preprocessing,
            class_count=4,
            run=settings,
        )

    undisturbed = run(Run())
    with pytest.raises(Stopped):
        run(Run(checkpoint_dir=tmp_path, should_stop=StopAfter(3)))
    assert differences(undisturbed, run(Run(checkpoint_dir=tmp_path))) == []


def test_checkpoints_are_written_when_due(
    bars: Bars, preprocessing: Preprocessing, tmp_path: Path
) -> None:
    pretrain(
        bars[0],
        CONFIG,
        preprocessing,
        run=Run(checkpoint_dir=tmp_path, checkpoint_seconds=0),
    )
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000012"]
    files = sorted(path.name for path in (tmp_path / "step-000000000012").iterdir())
    assert files == ["state.json", "tensors.safetensors"]


def test_no_checkpoint_before_it_is_due(
    bars: Bars, preprocessing: Preprocessing, tmp_path: Path
) -> None:
    pretrain(bars[0], CONFIG, preprocessing, run=Run(checkpoint_dir=tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_checkpoint_of_another_run_is_refused(
    bars: Bars, preprocessing: Preprocessing, tmp_path: Path
) -> None:
    stop = Run(checkpoint_dir=tmp_path, should_stop=lambda: True)
    with pytest.raises(Stopped):
        pretrain(bars[0], CONFIG, preprocessing, run=stop)
    other = dataclasses.replace(CONFIG, temperature=0.9)
    with pytest.raises(ValueError, match="another run"):
        pretrain(bars[0], other, preprocessing, run=stop)


def test_an_unfinished_checkpoint_is_ignored_and_removed(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, seconds=60, fingerprint={"run": 1})
    state = TrainingState(step=5, tensors={"x": torch.arange(3.0)}, scalars={"y": 2})
    checkpoint.save(state)
    (tmp_path / "unfinished-1").mkdir()
    (tmp_path / "unfinished-1" / "state.json").write_text(json.dumps({"step": 9}))
    loaded = checkpoint.load()
    assert loaded is not None
    assert (loaded.step, loaded.scalars) == (5, {"y": 2})
    assert torch.equal(loaded.tensors["x"], torch.arange(3.0))
    checkpoint.save(dataclasses.replace(state, step=6))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000006"]


def test_nothing_to_load(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "none", seconds=60, fingerprint={}).load() is None
