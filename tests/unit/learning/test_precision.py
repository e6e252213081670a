"""Products in bfloat16 where that is faster, and what it must not change."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from core.learning import precision
from core.learning.augmentations import AugmentationConfig
from core.learning.encoders import create_encoder
from core.learning.precision import cpu_has_bfloat16, precision_of
from core.learning.preprocessing import Preprocessing
from core.learning.run import Run
from core.learning.simclr import SimCLRConfig, pretrain
from core.learning.trainer import Progress, Stopped

Bars = tuple[NDArray[np.uint8], NDArray[np.int64]]
NETWORK = nn.Conv2d(3, 4, 3)
CONFIG = SimCLRConfig(
    encoder="resnet10_tiny",
    image_size=8,
    channels=1,
    epochs=3,
    batch_size=60,
    projection_dim=16,
    precision="mixed",
    augmentation=AugmentationConfig(crop_area=(0.5, 1.0), contrast=0.4, jitter=0.8),
)


@pytest.fixture
def _with_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the processor had them; where it has not, products are emulated."""
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: True)


def with_instructions(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    found = {"avx512_f": True, "avx512_bf16": False, "amx_bf16": False} | dict.fromkeys(names, True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16"])
def test_a_cpu_with_instructions_for_it_uses_them(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with_instructions(monkeypatch, name)
    assert cpu_has_bfloat16()
    assert precision_of(NETWORK, wanted="mixed", device="cpu") == "bfloat16"
    assert precision_of(NETWORK, wanted="float32", device="cpu") == "float32"


def test_without_them_it_would_be_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    with_instructions(monkeypatch)
    assert precision_of(NETWORK, wanted="mixed", device="cpu") == "float32"


def test_a_processor_that_torch_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "riscv64"})
    assert not cpu_has_bfloat16()


@pytest.mark.usefixtures("_with_instructions")
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_b0"])
def test_depthwise_convolutions_are_slower_in_it_on_a_cpu(name: str) -> None:
    encoder = create_encoder(name, image_size=32, channels=3)
    assert precision_of(nn.Sequential(encoder), wanted="mixed", device="cpu") == "float32"


@pytest.mark.parametrize("supported", [True, False])
def test_a_gpu_is_asked(monkeypatch: pytest.MonkeyPatch, *, supported: bool) -> None:
    asked: list[bool] = []

    def is_bf16_supported(*, including_emulation: bool) -> bool:
        asked.append(including_emulation)
        return supported

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    found = precision_of(NETWORK, wanted="mixed", device="cuda:0")
    assert found == ("bfloat16" if supported else "float32")
    assert asked == [False], "emulation is no gain"


def test_other_words_are_refused() -> None:
    with pytest.raises(ValueError, match="precision: found 'float16', allowed are mixed, float32"):
        precision_of(NETWORK, wanted="float16", device="cpu")


@pytest.mark.usefixtures("_with_instructions")
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_it_learns_what_float32_learns(
    bars: Bars, preprocessing: Preprocessing, optimizer: str
) -> None:
    losses = {}
    for wanted in ("mixed", "float32"):
        seen: list[Progress] = []
        config = dataclasses.replace(
            CONFIG, precision=wanted, optimizer=optimizer, learning_rate=0.01
        )
        made = pretrain(bars[0], config, preprocessing, run=Run(on_step=seen.append))
        losses[wanted] = [progress.loss for progress in seen]
        assert made.report["precision"] == ("bfloat16" if wanted == "mixed" else "float32")
        assert {weight.dtype for weight in made.encoder.parameters()} == {torch.float32}
    assert losses["mixed"] != losses["float32"], "it was used"
    assert losses["mixed"] == pytest.approx(losses["float32"], rel=0.03)


@pytest.mark.usefixtures("_with_instructions")
def test_a_resumed_run_ends_with_the_same_bits(
    bars: Bars, preprocessing: Preprocessing, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, micro_batch_size=20)
    undisturbed = pretrain(bars[0], config, preprocessing, run=Run())
    asked = iter([False, False, True])
    run = Run(checkpoint_dir=tmp_path, should_stop=lambda: next(asked))
    with pytest.raises(Stopped, match="after step 3 of 12"):
        pretrain(bars[0], config, preprocessing, run=run)
    resumed = pretrain(bars[0], config, preprocessing, run=Run(checkpoint_dir=tmp_path))
    for name, weight in undisturbed.encoder.state_dict().items():
        assert torch.equal(weight, resumed.encoder.state_dict()[name]), name
