"""The compiled kernel beside PyTorch's operations, and how its machine code is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from numba.core.dispatcher import Dispatcher

from core.learning.augmentations import PRESETS, AugmentationConfig, augment, machine_code
from core.learning.preprocessing import Preprocessing
from tests.unit.learning.augmentation_samples import EVERYTHING, one_view, rough_images

PREPARE = """
import logging
logging.basicConfig()
from core.learning.augmentations import prepare
prepare()
"""
# Turned by quarters and rotated, which no preset is.
TILTED = AugmentationConfig.from_dict({**EVERYTHING.to_dict(), "rotation": 20.0, "shear": 10.0})


@pytest.mark.parametrize("config", [*PRESETS.values(), EVERYTHING, TILTED], ids=range(8))
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 5, 32, 65])
@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
def test_the_kernel_does_what_the_operations_do(
    config: AugmentationConfig, channels: int, size: int, strength: float
) -> None:
    images, config = rough_images(24, size, channels), config.scaled(strength)
    compiled, by_operations = (one_view(images, config, compiled=c) for c in (True, False))
    # A value that rounding carries over the threshold of solarisation is another one.
    far = (compiled - by_operations).abs() > 1e-4
    assert far.float().mean() < 1e-5


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_views_can_be_standardised(channels: int, compiled: bool) -> None:
    images = rough_images(4, 16, channels)
    preprocessing = Preprocessing(
        image_size=16,
        channels=channels,
        mean=(0.2, 0.4, 0.6)[:channels],
        std=(0.5, 0.1, 2.0)[:channels],
    )
    plain, standardised = (
        augment(
            images,
            config=EVERYTHING,
            views=2,
            generator=torch.Generator().manual_seed(0),
            preprocessing=known,
            compiled=compiled,
        )
        for known in (None, preprocessing)
    )
    expected = preprocessing.standardise(plain.clone())
    torch.testing.assert_close(standardised, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("batch", "views"), [(0, 2), (2, 0)])
def test_no_views_are_no_error(batch: int, views: int, compiled: bool) -> None:
    made = augment(
        rough_images(batch, 16, 3),
        config=EVERYTHING,
        views=views,
        generator=torch.Generator(),
        compiled=compiled,
    )
    assert made.shape == (views, batch, 3, 16, 16)


def test_images_of_any_layout_give_the_same_views() -> None:
    images = rough_images(4, 16, 3)
    planes_first = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not planes_first.is_contiguous()
    assert torch.equal(one_view(planes_first, EVERYTHING), one_view(images, EVERYTHING))


def prepared(folder: Path) -> str:
    """Prepare the kernel in a process of its own; what it logged."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", PREPARE],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


def test_what_is_kept_is_used_and_what_is_damaged_is_made_anew(tmp_path: Path) -> None:
    assert prepared(tmp_path) == ""
    (index,) = tmp_path.rglob("*.nbi")
    (code,) = tmp_path.rglob("*.nbc")
    made = code.stat().st_mtime_ns
    assert b"core.learning" not in index.read_bytes(), "what is kept names a class of ours"
    assert prepared(tmp_path) == ""
    assert code.stat().st_mtime_ns == made, "it was compiled again"
    index.write_bytes(b"")
    assert "each process compiles it for itself" in prepared(tmp_path)


def test_without_a_folder_it_is_compiled_by_each_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(Dispatcher, "enable_caching", refuse)
    assert machine_code.kernel.__wrapped__() is not machine_code.kernel()
    assert "each process compiles it for itself" in caplog.text
