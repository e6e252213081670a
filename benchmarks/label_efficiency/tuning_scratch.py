"""How the network without pre-training was given its best chance, without any test image.

As in `tuning`: the last sixth of the pool takes the place of a test set, the draws are others than
those of the tables, and the smaller encoder saves time. Each variant is recorded with its settings
in benchmarks/results/tuning.

Run with: python -m benchmarks.label_efficiency.tuning_scratch [NAME …]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from benchmarks.cells import RESULTS, Cell, Results
from benchmarks.datasets import Dataset, draw_labels, load
from benchmarks.label_efficiency.recipes import epochs_of, recipe
from benchmarks.label_efficiency.tuning import ENCODER, PER_CLASS, Parts
from core.learning.augmentations import PRESETS
from core.learning.determinism import seed_everything
from core.learning.encoders import create_encoder
from core.learning.evaluation import accuracy, predict_logits
from core.learning.finetuning import FinetuneConfig, finetune
from core.learning.run import Run

DRAWS = range(1000, 1003)
GREY = PRESETS["greyscale"]
LABELS = 10 * PER_CLASS

VARIANTS: dict[str, Mapping[str, Any]] = {
    "scratch-strength-1": {"augmentation": GREY},
    "scratch-strength-0.5": {"augmentation": GREY.scaled(0.5)},
    "scratch-strength-0.2": {"augmentation": GREY.scaled(0.2)},
    "scratch-short": {"epochs": epochs_of(300, LABELS, 64)},
    "scratch-long": {"epochs": epochs_of(2000, LABELS, 64)},
    "scratch-slow": {"learning_rate": 1e-3},
    "scratch-smooth": {"label_smoothing": 0.1},
}


def measure(dataset: Dataset, config: FinetuneConfig) -> dict[str, Any]:
    """Accuracy on the last sixth of the pool, in per cent: of each draw, and the mean."""
    parts = Parts(dataset)
    found = []
    for seed in DRAWS:
        rows = draw_labels(parts.targets, PER_CLASS, seed=seed)
        seed_everything(seed)
        shape = dataset.preprocessing
        encoder = create_encoder(ENCODER, image_size=shape.image_size, channels=shape.channels)
        classifier = finetune(
            dataset.pool[rows], parts.targets[rows], encoder, config, shape,
            class_count=dataset.classes, run=Run(),
        ).classifier  # fmt: skip
        logits = predict_logits(classifier, dataset.pool[parts.split :], shape)
        found.append(round(100 * accuracy(logits, parts.held()), 2))
    return {"draws": found, "mean": round(statistics.mean(found), 2)}


def main() -> None:
    """Compute what is missing, print a line a variant and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(VARIANTS))
    options = parser.parse_args()
    torch.manual_seed(0)
    dataset, results = load("fashion-mnist"), Results(RESULTS / "tuning")
    base = recipe(dataset.name).scratch(PER_CLASS)
    printed: dict[str, Any] = {}
    for name in options.names or VARIANTS:
        config = replace(base, calibrate=False, **VARIANTS[name])
        cell, settings = Cell(dataset.name, PER_CLASS, 0, name), {"scratch": config.to_dict()}
        values = results.read(cell, settings)
        if values is None:
            values = measure(dataset, config)
            results.write(cell, settings, values)
        printed[name] = {key: values[key] for key in ("draws", "mean")}
        print(f"{name:22s} {values['mean']:.2f} of {values['draws']}", flush=True)
    print(json.dumps(printed))


if __name__ == "__main__":
    main()
