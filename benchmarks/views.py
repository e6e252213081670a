"""Which loss, and how many views, at equal compute: kNN accuracy on held-out training images.

Every run has the same steps and the same number of views a step, so more views mean fewer images.
"supcon" is the form with all positives in the denominator (SupCon-self), "nt_xent" sets each
positive alone against the negatives, "dcl" has none in it; with two views the first two are equal.

Run with: python -m benchmarks.views [--steps 1500] [--seeds 2] [--dataset fashion-mnist]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.cells import RESULTS, Cell, Results, spread, versions
from benchmarks.datasets import Dataset, load
from benchmarks.label_efficiency.recipes import recipe
from core.learning.evaluation import features, knn_accuracy
from core.learning.run import Run
from core.learning.simclr import SimCLRConfig, pretrain

ROWS = 256  # views a step, whatever their number an image
ENCODER = "resnet10_tiny"
REFERENCES = 10_000
RUNS = (
    ("nt_xent", 2),
    ("dcl", 2),
    ("nt_xent", 4),
    ("supcon", 4),
    ("dcl", 4),
    ("nt_xent", 8),
    ("supcon", 8),
    ("dcl", 8),
)


def config_of(dataset: Dataset, loss: str, views: int, *, steps: int, seed: int) -> SimCLRConfig:
    """The dataset's recipe with this loss and these views, as long as all the others."""
    batch = ROWS // views
    steps_per_epoch = max(1, _training(dataset) // batch)
    epochs = math.ceil(steps / steps_per_epoch)
    return replace(
        recipe(dataset.name).pretrain,
        encoder=ENCODER,
        loss=loss,
        views=views,
        batch_size=batch,
        epochs=epochs,
        budget_minutes=None,
        warmup_epochs=steps / 20 / steps_per_epoch,
        probe_every=10**9,
        seed=seed,
    )


def _training(dataset: Dataset) -> int:
    """Images that are trained on; the rest of the pool is looked up."""
    return len(dataset.pool) * 11 // 12


def measure(dataset: Dataset, config: SimCLRConfig, steps: int) -> dict[str, Any]:
    """Train on the pool but its last twelfth, whose classes are then looked up."""
    split = _training(dataset)
    steps_per_epoch = split // config.batch_size
    assert config.epochs is not None
    # Fewer images instead of a cut-off schedule where the steps end within an epoch.
    images = min(split, steps // config.epochs * config.batch_size)
    assert images <= steps_per_epoch * config.batch_size
    started = time.perf_counter()
    encoder = pretrain(dataset.pool[:images], config, dataset.preprocessing, run=Run()).encoder
    seconds = time.perf_counter() - started
    known = slice(0, min(REFERENCES, split))
    accuracy = knn_accuracy(
        features(encoder, dataset.pool[known], dataset.preprocessing),
        torch.from_numpy(dataset.pool_targets[known]),
        features(encoder, dataset.pool[split:], dataset.preprocessing),
        torch.from_numpy(np.ascontiguousarray(dataset.pool_targets[split:])),
    )
    return {"knn": accuracy, "seconds": round(seconds, 1)}


def main() -> None:
    """Compute what is missing, print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--dataset", default="fashion-mnist", choices=("fashion-mnist", "digits"))
    options = parser.parse_args()
    dataset, results = load(options.dataset), Results(RESULTS / "views")
    print(f"python -m benchmarks.views --steps {options.steps} --dataset {dataset.name}")
    print(", ".join(f"{name} {version}" for name, version in versions().items()), flush=True)
    rows: dict[str, Any] = {}
    for loss, views in RUNS:
        found = []
        for seed in range(options.seeds):
            config = config_of(dataset, loss, views, steps=options.steps, seed=seed)
            settings = {"steps": options.steps, "pretrain": config.to_dict()}
            cell = Cell(dataset.name, views, seed, loss)
            record = results.read(cell, settings)
            if record is None:
                record = measure(dataset, config, options.steps)
                results.write(cell, settings, record)
            found.append(record["knn"])
        rows[f"{loss}-{views}"] = spread(found)
        middle, deviation = rows[f"{loss}-{views}"]
        shape = f"{views} views x {ROWS // views:3d} images, {loss:8s}"
        print(f"{shape} kNN {middle:.2f} ± {deviation:.2f} %", flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
