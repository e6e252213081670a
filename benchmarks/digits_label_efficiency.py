"""Accuracy on scikit-learn's digits with five labels a class: what each stage is worth.

Every image outside the held-out 500 is in the unlabelled pool; five labels a class are drawn from
it, several times. Compared are raw pixels with logistic regression, the same encoder trained from
scratch on the labels, SimCLR with a linear head, and a smaller student distilled from that.

Run with: python benchmarks/digits_label_efficiency.py [--draws 5]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import sklearn
import torch
import torchvision
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from core.learning.architecture import Architecture
from core.learning.augmentations import PRESETS
from core.learning.classifier import Classifier
from core.learning.data import channel_statistics
from core.learning.determinism import seed_everything
from core.learning.distillation import DistillConfig, distill
from core.learning.encoders import Encoder, create_encoder
from core.learning.evaluation import accuracy, predict_logits
from core.learning.finetuning import FinetuneConfig, finetune
from core.learning.preprocessing import Preprocessing
from core.learning.run import Run
from core.learning.simclr import SimCLRConfig, pretrain

IMAGE_SIZE = 8
CLASSES = 10
HELD_OUT = 500
SPLIT_SEED = 20260101
AUGMENTATION = PRESETS["document"]
SIMCLR = SimCLRConfig(
    encoder="resnet10",
    image_size=IMAGE_SIZE,
    channels=1,
    epochs=50,
    temperature=1.0,
    augmentation=AUGMENTATION,
)
SCRATCH = FinetuneConfig(
    method="full", from_scratch=True, calibrate=False, epochs=500, augmentation=AUGMENTATION
)
HEAD = FinetuneConfig(method="linear", calibrate=False)
DISTILL = DistillConfig(epochs=60, augmentation=AUGMENTATION)
STUDENT = Architecture(
    encoder="resnet10_tiny", image_size=IMAGE_SIZE, channels=1, class_count=CLASSES
)

Images = NDArray[np.uint8]
Targets = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class Digits:
    """Canvases and classes; rows of the pool (unlabelled but for a draw) and of the held-out."""

    images: Images
    targets: Targets
    pool: NDArray[np.int64]
    held_out: NDArray[np.int64]
    preprocessing: Preprocessing


class Results:
    """Accuracies and seconds by method."""

    def __init__(self) -> None:
        self.accuracies: dict[str, list[float]] = {}
        self.seconds: dict[str, list[float]] = {}

    def timed(self, name: str, work: Callable[[], T]) -> T:
        """The result of the work, its time noted."""
        started = time.perf_counter()
        result = work()
        self.seconds.setdefault(name, []).append(time.perf_counter() - started)
        return result

    def print(self) -> None:
        """One line a method."""
        for name, seconds in self.seconds.items():
            values = [100 * value for value in self.accuracies.get(name, [])]
            spread = (
                f"{statistics.mean(values):6.2f} ± {statistics.stdev(values):.2f} %"
                if values
                else "-"
            )
            print(f"{name:24s} {spread:>17s}   {statistics.mean(seconds):7.2f} s")


def load() -> Digits:
    """The digits as the product sees them: grey 8x8 images in 256 levels."""
    pixels, targets = load_digits(return_X_y=True)
    greys = np.round(pixels.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(targets))
    held_out, pool = order[:HELD_OUT], order[HELD_OUT:]
    blank = Preprocessing(image_size=IMAGE_SIZE, channels=1, mean=(0.0,), std=(1.0,))
    images = np.stack([blank.canvas(np.repeat(grey[..., None], 3, axis=2)) for grey in greys])
    mean, std = channel_statistics(images[pool])
    preprocessing = Preprocessing(image_size=IMAGE_SIZE, channels=1, mean=mean, std=std)
    return Digits(images, targets.astype(np.int64), pool, held_out, preprocessing)


def draw_labels(digits: Digits, per_class: int, seed: int) -> NDArray[np.int64]:
    """Rows of the pool whose labels may be used."""
    generator = np.random.default_rng(seed)
    targets = digits.targets[digits.pool]
    rows = [generator.permutation(np.flatnonzero(targets == c))[:per_class] for c in range(CLASSES)]
    return np.asarray(digits.pool[np.concatenate(rows)])


def raw_pixels(digits: Digits, labelled: NDArray[np.int64]) -> float:
    """Held-out accuracy of logistic regression on the grey values."""
    flat = digits.images.reshape(len(digits.images), -1) / 255
    model = LogisticRegression(max_iter=2000).fit(flat[labelled], digits.targets[labelled])
    return float(model.score(flat[digits.held_out], digits.targets[digits.held_out]))


def held_out_accuracy(digits: Digits, model: Classifier) -> float:
    """Accuracy on images that no stage has seen."""
    logits = predict_logits(model, digits.images[digits.held_out], digits.preprocessing)
    return accuracy(logits, torch.from_numpy(digits.targets[digits.held_out]))


def random_encoder(seed: int) -> Encoder:
    """The architecture that is pre-trained, without the pre-training."""
    seed_everything(seed)
    return create_encoder(SIMCLR.encoder, image_size=IMAGE_SIZE, channels=1)


def random_student(seed: int) -> Classifier:
    """The smaller architecture."""
    seed_everything(seed)
    student = STUDENT.build()
    assert isinstance(student, Classifier)
    return student


def compare(
    digits: Digits, encoder: Encoder, results: Results, *, seed: int, per_class: int
) -> None:
    """All methods on one draw of labels."""
    labelled = draw_labels(digits, per_class, seed)
    images, targets = digits.images[labelled], digits.targets[labelled]
    pool = digits.images[digits.pool]

    def train(start: Encoder, config: FinetuneConfig) -> Classifier:
        return finetune(
            images, targets, start, config, digits.preprocessing, class_count=CLASSES, run=Run()
        ).classifier

    def student() -> Classifier:
        return distill(
            pool, teacher, random_student(seed), DISTILL, digits.preprocessing, run=Run()
        )

    pixels = results.timed("raw pixels, logistic", lambda: raw_pixels(digits, labelled))
    results.accuracies.setdefault("raw pixels, logistic", []).append(pixels)
    scratch = results.timed("from scratch", lambda: train(random_encoder(seed), SCRATCH))
    teacher = results.timed("finetune", lambda: train(encoder, HEAD))
    smaller = results.timed("distill", student)
    for name, model in (("from scratch", scratch), ("finetune", teacher), ("distill", smaller)):
        results.accuracies.setdefault(name, []).append(held_out_accuracy(digits, model))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--draws", type=int, default=5, help="draws of labels")
    parser.add_argument("--per-class", type=int, default=5, help="labels of each class")
    options = parser.parse_args()
    digits, results = load(), Results()
    pool = digits.images[digits.pool]
    pretrained = results.timed(
        "pretrain", lambda: pretrain(pool, SIMCLR, digits.preprocessing, run=Run())
    )
    for seed in range(options.draws):
        compare(digits, pretrained.encoder, results, seed=seed, per_class=options.per_class)
    print(f"python {' '.join(sys.argv)}")
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}, scikit-learn {sklearn.__version__}, "
        f"{torch.get_num_threads()} threads, {platform.machine()}"
    )
    print(
        f"{len(digits.pool)} images in the pool, {options.per_class} labels a class, "
        f"{len(digits.held_out)} held out; mean ± s.d. over {options.draws} draws of labels"
    )
    results.print()


if __name__ == "__main__":
    main()
