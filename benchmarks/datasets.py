"""The images: Fashion-MNIST and scikit-learn's digits, as canvases, with a test set put aside."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torchvision.datasets import FashionMNIST

from core.learning.data import channel_statistics
from core.learning.preprocessing import Preprocessing

Images = NDArray[np.uint8]
Targets = NDArray[np.int64]

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # apt-get install dataset-fashion-mnist
DOWNLOADS = Path(os.environ.get("FASHION_MNIST", "~/.cache/fewlabels-benchmarks")).expanduser()
FASHION_SIZE = 32
DIGITS_SIZE = 8
DIGITS_TEST = 500
DIGITS_SPLIT_SEED = 20260101


@dataclass(frozen=True, slots=True)
class Dataset:
    """Canvases of a pool (its labels are used only where they are drawn) and of a test set."""

    name: str
    pool: Images
    pool_targets: Targets
    test: Images
    test_targets: Targets
    preprocessing: Preprocessing

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.pool_targets.max()) + 1


def load(name: str) -> Dataset:
    """A dataset by name, with the channel statistics of its pool."""
    return {"fashion-mnist": fashion_mnist, "digits": digits}[name]()


def fashion_mnist() -> Dataset:
    """60,000 images of clothes and 10,000 to test on, 28 x 28 grey, enlarged to 32 (the plan's).

    From Debian's package `dataset-fashion-mnist` when it is installed, or else through
    torchvision's download into the folder that the variable FASHION_MNIST names.
    """
    if DEBIAN.exists():
        pool, pool_targets = _debian("train")
        test, test_targets = _debian("t10k")
    else:
        parts = [FashionMNIST(DOWNLOADS, train=train, download=True) for train in (True, False)]
        (pool, pool_targets), (test, test_targets) = (
            (part.data.numpy(), part.targets.numpy()) for part in parts
        )
    return _dataset("fashion-mnist", FASHION_SIZE, (pool, pool_targets), (test, test_targets))


def digits() -> Dataset:
    """1,797 digits, 8 x 8 grey, 500 of them to test on."""
    pixels, targets = load_digits(return_X_y=True)
    greys = np.round(pixels.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    order = np.random.default_rng(DIGITS_SPLIT_SEED).permutation(len(targets))
    test, pool = order[:DIGITS_TEST], order[DIGITS_TEST:]
    return _dataset(
        "digits", DIGITS_SIZE, (greys[pool], targets[pool]), (greys[test], targets[test])
    )


def draw_labels(targets: Targets, per_class: int, *, seed: int) -> NDArray[np.int64]:
    """Rows whose labels may be used: so many of each class (all where there are fewer)."""
    generator = np.random.default_rng(seed)
    classes = range(int(targets.max()) + 1)
    rows = [generator.permutation(np.flatnonzero(targets == c))[:per_class] for c in classes]
    return np.concatenate(rows)


def _debian(part: str) -> tuple[Images, Targets]:
    images = _idx(DEBIAN / f"{part}-images-idx3-ubyte.gz")
    return images, _idx(DEBIAN / f"{part}-labels-idx1-ubyte.gz").astype(np.int64)


def _idx(path: Path) -> Images:
    """An array in the IDX format: two zero bytes, type, dimensions, sizes, values."""
    content = gzip.decompress(path.read_bytes())
    sizes = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)


def _dataset(
    name: str, size: int, pool: tuple[Images, Targets], test: tuple[Images, Targets]
) -> Dataset:
    neutral = Preprocessing(image_size=size, channels=1, mean=(0.0,), std=(1.0,))

    def canvases(greys: Images) -> Images:
        return np.stack([neutral.canvas(np.repeat(grey[..., None], 3, axis=2)) for grey in greys])

    images = canvases(pool[0])
    mean, std = channel_statistics(images)
    final = Preprocessing(image_size=size, channels=1, mean=mean, std=std)
    return Dataset(
        name,
        images,
        pool[1].astype(np.int64),
        canvases(test[0]),
        test[1].astype(np.int64),
        final,
    )
