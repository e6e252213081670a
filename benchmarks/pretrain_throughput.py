"""Images a second of a whole pre-training step, from data to optimizer, beside lightly's.

Three things take turns on the same machine, images, encoder, batch and threads: this project's
`pretrain`, a training loop over lightly's transform, DataLoader and NT-Xent, and the limit: forward
and backward of the same network on data that is already there. At 32 px both start from decoded
images in memory; at 96 and 224 px from JPEG files: lightly decodes them in each epoch, this project
once into a memory map, and the time for that is counted in full, as if there were but one epoch;
"decoded" is its speed from the second epoch on. Making the network is part of nobody's steps.

Both spend the same time in the network, so how much faster one is depends on the network: the
heavier it is, the nearer every ratio comes to one. The default is the smallest encoder, which
leaves the most to what a training loop can do well or badly.

Run with: python -m benchmarks.pretrain_throughput [--rounds 5] [--sizes 32 96 224] [--encoder NAME]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightly
import numpy as np
import torch
import torchvision
from lightly.loss import NTXentLoss
from lightly.transforms import SimCLRTransform
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from core.datasets.cache import open_cache
from core.images.recording import image_key
from core.learning.augmentations import PRESETS
from core.learning.data import channel_statistics
from core.learning.encoders import ENCODERS, create_encoder
from core.learning.heads import ProjectionHead
from core.learning.memory import keep_freed_memory
from core.learning.optimizers import OptimizerConfig, build_optimizer
from core.learning.preprocessing import Preprocessing
from core.learning.run import Run
from core.learning.simclr import SimCLRConfig, pretrain
from core.storage.folder import FolderStore

ENCODER = "resnet10_tiny"
TEMPERATURE = 0.5
RATE, DECAY = 2e-3, 1e-4
CORES = os.cpu_count() or 1
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Case:
    """A size of images, with as many of them as a turn takes."""

    size: int
    batch: int
    images: int
    files: int  # shorter side of the JPEG files; 0 = decoded images in memory
    preset: str
    transform: Callable[[], Any]


# lightly's own advice for small images: half the colour, no blur.
SMALL = partial(SimCLRTransform, 32, cj_strength=0.5, gaussian_blur=0.0)
CASES = {
    32: Case(32, 128, 4096, 0, "small", SMALL),
    96: Case(96, 128, 1024, 96, "photo", partial(SimCLRTransform, 96)),
    224: Case(224, 64, 384, 256, "photo", partial(SimCLRTransform, 224)),
}


class Images(Dataset[list[Tensor]]):
    """What lightly reads: files, or decoded images, each as its two views."""

    def __init__(self, sources: list[Path] | Pixels, transform: Any) -> None:
        self.sources = sources
        self.transform = transform

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> list[Tensor]:
        source = self.sources[index]
        image = (
            Image.open(source).convert("RGB")
            if isinstance(source, Path)
            else Image.fromarray(source)
        )
        views: list[Tensor] = self.transform(image)
        return views


def photographs(count: int, width: int, height: int) -> Iterator[Pixels]:
    """Cut-outs of scikit-learn's two photographs, of many places and scales."""
    random = np.random.default_rng(0)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    for index in range(count):
        photo = photos[index % len(photos)]
        scale = random.uniform(0.3, 0.95) * min(photo.width / width, photo.height / height)
        w, h = int(width * scale), int(height * scale)
        left = int(random.integers(0, photo.width - w + 1))
        top = int(random.integers(0, photo.height - h + 1))
        cut = photo.crop((left, top, left + w, top + h)).resize((width, height))
        yield np.array(cut, dtype=np.uint8)


class Contest:
    """The three competitors on one case; each call is a turn and gives images a second."""

    def __init__(self, case: Case, folder: Path, encoder: str) -> None:
        self.case = case
        self.encoder = encoder
        self.folder = folder
        self.store = FolderStore(folder / "blobs")
        self.store.prepare()
        self.sha256s: list[str] = []
        self.turns = 0
        self._decode_seconds = self.decoded_speed = 0.0
        side = case.files or case.size
        pictures = list(photographs(case.images, side * 4 // 3 if side == 256 else side, side))
        self.files = [self._write(i, picture) for i, picture in enumerate(pictures) if case.files]
        self.pixels = np.stack(pictures) if not case.files else None
        neutral = Preprocessing(image_size=case.size, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
        sample = np.stack([neutral.canvas(picture) for picture in pictures[:256]])
        mean, std = channel_statistics(sample)
        self.preprocessing = Preprocessing(image_size=case.size, channels=3, mean=mean, std=std)
        self.workers = 0
        self.loaders: dict[int, Any] = {}

    def _write(self, index: int, picture: Pixels) -> Path:
        path = self.folder / f"{index}.jpg"
        Image.fromarray(picture).save(path, quality=90)
        data = path.read_bytes()
        # The service asks of each image whether its bytes are those that were uploaded; so here.
        self.sha256s.append(hashlib.sha256(data).hexdigest())
        self.store.put(image_key(self.sha256s[-1]), data)
        return path

    def ours(self) -> float:
        """Decoding included; set-up with the first step, and the look at the features with the
        last one, left out."""
        case = self.case
        self.turns += 1
        config = SimCLRConfig(
            encoder=self.encoder, image_size=case.size, channels=3, epochs=1, batch_size=case.batch,
            temperature=TEMPERATURE, learning_rate=RATE, weight_decay=DECAY, warmup_epochs=0,
            augmentation=PRESETS[case.preset], probe_every=10**9,
        )  # fmt: skip
        times: list[float] = []
        images = self.pixels if self.pixels is not None else self._decoded()
        run = Run(on_step=lambda _: times.append(time.perf_counter()))
        pretrain(images, config, self.preprocessing, run=run)
        an_image = (times[-2] - times[0]) / ((len(times) - 2) * case.batch)
        self.decoded_speed = 1 / an_image
        return 1 / (an_image + self._decode_seconds / case.images)

    def _decoded(self) -> Pixels:
        started = time.perf_counter()
        size = self.case.size
        images = open_cache(
            self.folder / f"cache-{self.turns}",
            self.store,
            self.sha256s,
            canvas=self.preprocessing.canvas,
            shape=(size, size, 3),
            on_image=lambda _done, _total: None,
        )
        self._decode_seconds = time.perf_counter() - started
        return images

    def network(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Encoder and projection head as `pretrain` makes them, and the optimizer."""
        encoder = create_encoder(self.encoder, image_size=self.case.size, channels=3)
        dim = encoder.feature_dim
        head = ProjectionHead(dim, hidden_dim=dim, projection_dim=64)
        module = nn.Sequential(encoder, head).train()
        config = OptimizerConfig(name="adamw", learning_rate=RATE, weight_decay=DECAY)
        return module, build_optimizer(module, config)

    def lightly(self, workers: int | None = None) -> float:
        """The workers run already and have filled their queues when the turn begins."""
        workers = self.workers if workers is None else workers
        case = self.case
        module, optimizer = self.network()
        criterion = NTXentLoss(temperature=TEMPERATURE)
        if workers not in self.loaders:
            sources = self.pixels if self.pixels is not None else self.files
            self.loaders[workers] = DataLoader(
                Images(sources, case.transform()), batch_size=case.batch, shuffle=True,
                drop_last=True, num_workers=workers, persistent_workers=workers > 0,
            )  # fmt: skip
        batches = iter(self.loaders[workers])
        next(batches)
        steps, started = 0, time.perf_counter()
        for first, second in batches:
            z = module(torch.cat([first, second]))
            loss = criterion(*z.chunk(2))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss.item()
            steps += 1
        return steps * case.batch / (time.perf_counter() - started)

    def limit(self) -> float:
        """Forward and backward, nothing else."""
        case, (module, _) = self.case, self.network()
        views = torch.randn(2 * case.batch, 3, case.size, case.size)
        steps, started = case.images // case.batch - 1, time.perf_counter()
        for _ in range(steps):
            module.zero_grad(set_to_none=True)
            module(views).sum().backward()
        return steps * case.batch / (time.perf_counter() - started)

    def choose_workers(self) -> None:
        """The number of workers that is best for lightly here."""
        counts = range(CORES + 1)
        turns = [{workers: self.lightly(workers) for workers in counts} for _ in range(2)]
        speeds = {workers: max(turn[workers] for turn in turns) for workers in counts}
        self.workers = max(speeds, key=lambda workers: speeds[workers])
        for workers in set(self.loaders) - {self.workers}:
            del self.loaders[workers]
        told = ", ".join(f"{workers}: {speed:.0f}" for workers, speed in speeds.items())
        print(f"  lightly by workers, images/s: {told}", flush=True)


def measure(case: Case, rounds: int, encoder: str) -> dict[str, float]:
    """Medians over the rounds, in each of which the three take turns; ratios within a round."""
    with tempfile.TemporaryDirectory() as folder:
        contest = Contest(case, Path(folder), encoder)
        print(f"{case.size} px, batch {case.batch} x 2 views", flush=True)
        contest.choose_workers()
        contest.limit()  # warm
        turns: list[dict[str, float]] = []
        for number in range(rounds):
            turn = {name: getattr(contest, name)() for name in ("ours", "lightly", "limit")}
            turns.append({**turn, "decoded": contest.decoded_speed})
            told = ", ".join(f"{name} {value:.1f}" for name, value in turns[-1].items())
            print(f"  round {number + 1}: {told} images/s", flush=True)
    middle = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    return {
        **{name: round(value, 1) for name, value in middle.items()},
        "ours/lightly": round(statistics.median(t["ours"] / t["lightly"] for t in turns), 3),
        "ours/limit": round(statistics.median(t["ours"] / t["limit"] for t in turns), 3),
        "decoded/limit": round(statistics.median(t["decoded"] / t["limit"] for t in turns), 3),
        "workers": contest.workers,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=sorted(CASES), choices=sorted(CASES)
    )
    parser.add_argument("--encoder", choices=ENCODERS, default=ENCODER)
    options = parser.parse_args()
    torch.manual_seed(0)
    keep_freed_memory()  # as the worker does; all three have it
    print(f"python -m benchmarks.pretrain_throughput {' '.join(sys.argv[1:])}")
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}, lightly {lightly.__version__}, {options.encoder}, "
        f"{torch.get_num_threads()} threads, {platform.machine()}"
    )
    results = {
        str(size): measure(CASES[size], options.rounds, options.encoder) for size in options.sizes
    }
    print(
        f"{'':>6s} {'ours':>9s} {'lightly':>9s} {'limit':>9s} {'x lightly':>10s} {'of limit':>9s} "
        f"{'decoded':>9s} {'of limit':>9s}"
    )
    for size, row in results.items():
        print(
            f"{size:>4s}px {row['ours']:9.1f} {row['lightly']:9.1f} {row['limit']:9.1f} "
            f"{row['ours/lightly']:10.2f} {row['ours/limit']:9.2f} "
            f"{row['decoded']:9.1f} {row['decoded/limit']:9.2f}"
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
