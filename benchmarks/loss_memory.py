"""Peak memory of the contrastive loss, and of a training step with a large batch.

1. NT-Xent, forward and backward, of 8192 images x 2 views x 128 dimensions: ours, which goes over
   the logits in chunks, and lightly's NTXentLoss, which holds all of them.
2. A whole SimCLR step (read, augment, encode, loss, backward, optimiser; ResNet-10, 32 px, RGB, 2
   views): 4096 images by gradient caching in chunks of 256, and a plain step of 256 images.

Every figure comes from a fresh process. `peak` is the largest resident set (VmHWM) of the whole
process from the start of the work on, `growth` how much that is above the resident set after
imports and inputs. Before both steps of 2 comes a plain step, so that gradients and the
optimiser's state are there, and no pass is the first. Each ratio is the larger one, so the less
favourable one, of those of `peak` and of `growth`. Linux only.

Run with: python -m benchmarks.loss_memory [--quick]
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.learning.encoders import create_encoder
from core.learning.heads import ProjectionHead
from core.learning.losses import nt_xent
from core.learning.preprocessing import Preprocessing
from core.learning.simclr import SimCLRConfig, SimCLRTask
from core.learning.trainer import Trainer, TrainerConfig

MEGABYTE = 2**20
TEMPERATURE, DIM, SIDE = 0.5, 128, 32
TARGETS = {"loss_ratio": 0.25, "cached_ratio": 1.3}
Work = Callable[[], float]


@dataclass(frozen=True)
class Sizes:
    """Images of the loss, of the large batch and of a chunk of it."""

    loss: int = 8192
    batch: int = 4096
    chunk: int = 256


@dataclass(frozen=True)
class Measured:
    """Resident memory in bytes, seconds, and the loss."""

    peak: int
    growth: int
    seconds: float
    loss: float


@dataclass(frozen=True)
class WarmedUp:
    """A small batch, then the one that is measured."""

    first: int
    second: int
    steps_per_epoch: int = 2

    def rows(self, step: int) -> Tensor:
        """Rows of the batch of a step."""
        return torch.arange(self.first if step == 0 else self.second)


def our_loss(sizes: Sizes) -> Work:
    """Forward and backward of `nt_xent`."""
    views = projections(sizes)

    def work() -> float:
        loss = nt_xent(views, temperature=TEMPERATURE)
        torch.autograd.backward(loss)
        return loss.item()

    return work


def lightly_loss(sizes: Sizes) -> Work:
    """Forward and backward of lightly's loss on the same projections."""
    from lightly.loss import NTXentLoss  # noqa: PLC0415 — no other measurement should load it

    views = projections(sizes)
    criterion = NTXentLoss(temperature=TEMPERATURE)

    def work() -> float:
        loss = criterion(*views)
        torch.autograd.backward(loss)
        return float(loss.item())

    return work


def projections(sizes: Sizes) -> Tensor:
    """The same for both losses."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, sizes.loss, DIM, generator=generator).requires_grad_()


def plain_step(sizes: Sizes) -> Work:
    """A training step of as many images as go through the encoder at once."""
    return training(sizes, batch=sizes.chunk)


def cached_step(sizes: Sizes) -> Work:
    """A training step of a batch that is many times larger."""
    return training(sizes, batch=sizes.batch)


def training(sizes: Sizes, *, batch: int) -> Work:
    """A plain step, then a step of the batch, by the product's own task and loop."""
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (sizes.batch, SIDE, SIDE, 3), dtype=np.uint8)
    config = SimCLRConfig(
        encoder="resnet10",
        image_size=SIDE,
        channels=3,
        epochs=1,
        batch_size=batch,
        micro_batch_size=sizes.chunk,
        warmup_epochs=0.0,
    )
    encoder = create_encoder(config.encoder, image_size=SIDE, channels=3)
    width = encoder.feature_dim
    head = ProjectionHead(width, hidden_dim=width, projection_dim=config.projection_dim)
    statistics = Preprocessing(image_size=SIDE, channels=3, mean=(0.5,) * 3, std=(0.3,) * 3)
    task = SimCLRTask(encoder, head, config, statistics)
    losses: list[float] = []
    trainer = Trainer(
        TrainerConfig.of(config), on_step=lambda progress: losses.append(progress.loss)
    )

    def work() -> float:
        trainer.fit(task, images, batches=WarmedUp(sizes.chunk, batch))
        return losses[-1]

    return work


MEASUREMENTS: dict[str, Callable[[Sizes], Work]] = {
    "loss, ours": our_loss,
    "loss, lightly": lightly_loss,
    "step, plain": plain_step,
    "step, cached": cached_step,
}


def resident(field: str) -> int:
    """VmRSS (now) or VmHWM (the most so far) of this process in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def measure(name: str, sizes: Sizes) -> Measured:
    """Do the work in this process."""
    work = MEASUREMENTS[name](sizes)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the most so far becomes what it is now
    before, started = resident("VmRSS"), time.perf_counter()
    loss = work()
    seconds, peak = time.perf_counter() - started, resident("VmHWM")
    return Measured(peak, peak - before, seconds, loss)


def measure_apart(name: str, sizes: Sizes) -> Measured:
    """Do the work in a fresh process."""
    command = [sys.executable, __file__, "--measure", name, json.dumps(asdict(sizes))]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def larger_ratio(ours: Measured, other: Measured) -> float:
    """By whichever of `peak` and `growth` is less favourable."""
    return round(max(ours.peak / other.peak, ours.growth / other.growth), 3)


def compare(sizes: Sizes) -> dict[str, float]:
    """Measure and print everything; the two ratios."""
    print(f"{'':36s} {'peak':>9s} {'growth':>9s} {'time':>8s} {'loss':>9s}")
    images = (sizes.loss, sizes.loss, sizes.chunk, sizes.batch)
    found: dict[str, Measured] = {}
    for name, count in zip(MEASUREMENTS, images, strict=True):
        found[name] = one = measure_apart(name, sizes)
        print(
            f"{name + f' ({count} images x 2 views)':36s} {one.peak / MEGABYTE:6.0f} MB "
            f"{one.growth / MEGABYTE:6.0f} MB {one.seconds:6.1f} s {one.loss:9.5f}"
        )
    ours, lightly, plain, cached = found.values()
    assert abs(ours.loss - lightly.loss) < 1e-4, "both must have found the same loss"
    return {
        "loss_ratio": larger_ratio(ours, lightly),
        "cached_ratio": larger_ratio(cached, plain),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a small size, to see that it runs")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "SIZES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, sizes = options.measure
        print(json.dumps(asdict(measure(name, Sizes(**json.loads(sizes))))))
        return
    if find_spec("lightly") is None:
        sys.exit("lightly is not installed: pip install -e '.[bench]'")
    print(f"python {' '.join(sys.argv)}")
    print(
        f"Python {platform.python_version()}, torch {version('torch')}, torchvision "
        f"{version('torchvision')}, lightly {version('lightly')}, "
        f"{torch.get_num_threads()} threads, {platform.machine()}, {platform.libc_ver()[1]} glibc"
    )
    ratios = compare(Sizes(loss=1024, batch=512, chunk=32) if options.quick else Sizes())
    targets = ", ".join(f"{name} ≤ {target}" for name, target in TARGETS.items())
    print(f"larger ratio of peak and growth; targets: {targets}")
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
