"""A run that was interrupted ends with the same weights, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from core.learning.augmentations import AugmentationConfig
from core.learning.checkpoint import Checkpoint, TrainingState, load_weights, save_weights
from core.learning.encoders import create_encoder
from core.learning.finetuning import FinetuneConfig, finetune
from core.learning.preprocessing import Preprocessing
from core.learning.run import Run
from core.learning.simclr import Pretrained, SimCLRConfig, pretrain
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


def both(pretrained: Pretrained) -> nn.Module:
    return nn.Sequential(pretrained.encoder, pretrained.projection)


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
    assert differences(both(undisturbed), both(resumed)) == []


EVERYTHING: dict[str, Any] = {
    "views": 4,
    "loss": "supcon",
    "use_labels": True,
    "label_share": 0.3,
    "micro_batch_size": 20,
    "clip_grad_norm": 0.5,
    "probe_every": 2,
    "encoder": "efficientnet_b0",  # has dropout
    "epochs": 1,
}
FEW = np.where(np.arange(240) % 10 == 0, np.arange(240) % 4, -1)


def test_all_options_at_once_resume_alike(
    bars: Bars, preprocessing: Preprocessing, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, **EVERYTHING)

    def run(settings: Run) -> Pretrained:
        return pretrain(bars[0][:150], config, preprocessing, run=settings, targets_N=FEW[:150])

    undisturbed = run(Run())
    with pytest.raises(Stopped):
        run(Run(checkpoint_dir=tmp_path, should_stop=StopAfter(2)))
    resumed = run(Run(checkpoint_dir=tmp_path))
    assert differences(both(undisturbed), both(resumed)) == []
    expected = {**undisturbed.report, "seconds": resumed.report["seconds"]}
    assert resumed.report == expected


def test_patience_goes_on_where_it_was(
    bars: Bars, preprocessing: Preprocessing, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        CONFIG, learning_rate=1e-9, epochs=20, probe_every=3, plateau_patience=3
    )

    def run(settings: Run) -> Pretrained:
        return pretrain(bars[0], config, preprocessing, run=settings, targets_N=bars[1])

    undisturbed = run(Run())
    assert undisturbed.report["stopped_early"]
    assert undisturbed.report["steps"] < 80
    with pytest.raises(Stopped):
        run(Run(checkpoint_dir=tmp_path, should_stop=StopAfter(7)))
    resumed = run(Run(checkpoint_dir=tmp_path))
    assert resumed.report["steps"] == undisturbed.report["steps"]
    assert differences(both(undisturbed), both(resumed)) == []


def test_killed_and_resumed_ends_with_the_same_bits(
    bars: Bars, preprocessing: Preprocessing, tmp_path: Path
) -> None:
    """SIGKILL, in the middle of steps and of checkpoints: nothing of the process can help."""
    np.save(tmp_path / "images.npy", bars[0])
    command = [sys.executable, __file__, str(tmp_path)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),  # sums in the same order
    }
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        first = [int(child.stdout.readline()) for _ in range(4)]
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    second = [int(line) for line in done.stdout.splitlines()]
    assert first == [1, 2, 3, 4]
    assert 4 <= second[0] <= 11, "the second process went on from a checkpoint of the first"
    assert second == list(range(second[0], 13))
    undisturbed = killed_run(bars[0], preprocessing, Run())
    found = create_encoder("resnet10_tiny", image_size=8, channels=1)
    load_weights(found, tmp_path / "encoder.safetensors")
    projection = undisturbed.spec.build()
    load_weights(projection, tmp_path / "projection.safetensors")
    assert differences(both(undisturbed), nn.ModuleList([found, projection])) == []


def killed_run(
    images: NDArray[np.uint8], preprocessing: Preprocessing, settings: Run
) -> Pretrained:
    return pretrain(images, CONFIG, preprocessing, run=settings)


def main(folder: Path) -> None:
    """What the process that is killed does: one line a step."""

    def say(progress: Progress) -> None:
        sys.stdout.write(f"{progress.step}\n")
        sys.stdout.flush()

    pretrained = killed_run(
        np.load(folder / "images.npy", mmap_mode="r"),
        Preprocessing(image_size=8, channels=1, mean=(0.3,), std=(0.25,)),
        Run(
            checkpoint_dir=folder / "checkpoint",
            checkpoint_seconds=0,
            on_step=say,
        ),
    )
    save_weights(pretrained.encoder, folder / "encoder.safetensors")
    save_weights(pretrained.projection, folder / "projection.safetensors")


def test_resumed_finetuning_equals_undisturbed_one(
    bars: Bars, preprocessing: Preprocessing, tmp_path: Path
) -> None:
    config = FinetuneConfig(
        method="full",
        calibrate=False,
        epochs=4,
        batch_size=16,
        augmentation=CONFIG.augmentation,
    )
    torch.manual_seed(0)
    encoder = create_encoder("mobilenet_v3_small", image_size=8, channels=1)

    def run(settings: Run) -> nn.Module:
        return finetune(
            bars[0][:40],
            bars[1][:40],
            encoder,
            config,
            preprocessing,
            class_count=4,
            run=settings,
        ).classifier

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


def test_no_checkpoint_while_what_came_before_is_not_reported(
    bars: Bars, preprocessing: Preprocessing, tmp_path: Path
) -> None:
    asked: list[int] = []

    def may_save() -> bool:
        asked.append(1)
        return len(asked) <= 5

    run = Run(checkpoint_dir=tmp_path, checkpoint_seconds=0, may_save=may_save)
    pretrain(bars[0], CONFIG, preprocessing, run=run)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000005"]
    assert len(asked) == 12, "once a step"


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


if __name__ == "__main__":
    main(Path(sys.argv[1]))


def test_a_run_goes_on_though_this_version_has_more_options(tmp_path: Path) -> None:
    state = TrainingState(step=1, tensors={"w": torch.zeros(1)}, scalars={})
    before = {"config": {"epochs": 3}, "images": 10}
    Checkpoint(tmp_path, seconds=60, fingerprint=before).save(state)
    more = {"config": {"epochs": 3, "precision": "float32"}, "images": 10}
    found = Checkpoint(tmp_path, seconds=60, fingerprint=more).load()
    assert found is not None
    assert found.step == 1
    for other in ({"config": {"epochs": 4}, "images": 10}, {"images": 10}, {}):
        with pytest.raises(ValueError, match="checkpoint of another run"):
            Checkpoint(tmp_path, seconds=60, fingerprint=other).load()
