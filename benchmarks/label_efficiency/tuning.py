"""What the recipes were chosen by: variants of the pre-training, looked at without any test image.

The last sixth of the pool is put aside; each variant is pre-trained on the rest for as many views,
with the smaller encoder for the sake of time, and then asked what it is worth with ten labels a
class, over draws of their own. Each variant is recorded with its settings in
benchmarks/results/tuning; what is there is not computed again.

Run with: python -m benchmarks.label_efficiency.tuning [--dataset digits] [--views 192000] [NAME …]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.cells import RESULTS, Cell, Results, versions
from benchmarks.datasets import Dataset, draw_labels, load
from benchmarks.label_efficiency.recipes import recipe
from core.learning.augmentations import PRESETS
from core.learning.evaluation import accuracy, features, knn_accuracy
from core.learning.finetuning.cached import HeadFitter
from core.learning.run import Run
from core.learning.simclr import Pretrained, SimCLRConfig, pretrain

DRAWS = range(1000, 1010)  # none of them is drawn for the tables
PER_CLASS = 10
ENCODER = "resnet10_tiny"
VIEWS = {"fashion-mnist": 192_000, "digits": 150_000}
REFERENCES = 10_000
START: Mapping[str, Any] = {"batch_size": 128, "learning_rate": 2e-3}
# "small" without colour: where the search began. It ended at VARIED, the preset "greyscale".
GREY = replace(PRESETS["small"], saturation=0.0, hue=0.0, grey=0.0)
MILD = replace(GREY, crop_area=(0.4, 1.0))
SHADED = replace(MILD, brightness=0.8, contrast=0.8, jitter=1.0)
VARIED = replace(SHADED, solarize=0.2, blur=0.5)
TURNED = replace(PRESETS["document"], flip=0.5)

VARIANTS: dict[str, Mapping[str, Any]] = {
    "greyscale-0.5": {"augmentation": GREY, "temperature": 0.5},
    "greyscale-0.2": {"augmentation": GREY, "temperature": 0.2},
    "greyscale-1.0": {"augmentation": GREY, "temperature": 1.0},
    "mild-0.5": {"augmentation": MILD, "temperature": 0.5},
    "mild-0.2": {"augmentation": MILD, "temperature": 0.2},
    "document-0.5": {"augmentation": PRESETS["document"], "temperature": 0.5},
    "document-1.0": {"augmentation": PRESETS["document"], "temperature": 1.0},
    "turned-0.5": {"augmentation": TURNED, "temperature": 0.5},
    "shaded-0.5": {"augmentation": SHADED, "temperature": 0.5},
    "shaded-0.2": {"augmentation": SHADED, "temperature": 0.2},
    "shaded-1.0": {"augmentation": SHADED, "temperature": 1.0},
    "varied": {"augmentation": VARIED},
    "varied-small-batch": {"augmentation": VARIED, "batch_size": 64},
    "varied-fast": {"augmentation": VARIED, "batch_size": 64, "learning_rate": 5e-3},
    "varied-views-4": {"augmentation": VARIED, "batch_size": 32, "views": 4},
    "varied-more": {"augmentation": replace(VARIED, solarize=0.4), "batch_size": 64},
    "varied-dcl": {"augmentation": VARIED, "batch_size": 64, "loss": "dcl"},
    "document-varied": {
        "augmentation": replace(PRESETS["document"], brightness=0.8, contrast=0.8, jitter=1.0),
        "temperature": 1.0,
    },
    "shaded-small-batch": {"augmentation": SHADED, "batch_size": 64},
    "shaded-fast": {"augmentation": SHADED, "learning_rate": 5e-3},
    "shaded-small-crops": {"augmentation": replace(SHADED, crop_area=(0.2, 1.0))},
    "strong-0.5": {"augmentation": GREY.scaled(1.5), "temperature": 0.5},
    "blurred-0.5": {"augmentation": replace(GREY, blur=0.5), "temperature": 0.5},
    "batch-256": {"augmentation": GREY, "batch_size": 256},
    "batch-64": {"augmentation": GREY, "batch_size": 64},
    "dcl": {"augmentation": GREY, "loss": "dcl"},
    "views-4": {"augmentation": GREY, "batch_size": 64, "views": 4},
    "projection-128": {"augmentation": GREY, "projection_dim": 128},
    "rate-1e-3": {"augmentation": GREY, "learning_rate": 1e-3},
    "rate-4e-3": {"augmentation": GREY, "learning_rate": 4e-3},
}


@dataclass(frozen=True, slots=True)
class Parts:
    """The pool without its last sixth, and that sixth, which takes the place of a test set."""

    dataset: Dataset

    @property
    def split(self) -> int:
        """Images that are trained on."""
        return len(self.dataset.pool) * 5 // 6

    @property
    def targets(self) -> NDArray[np.int64]:
        """Of those that are trained on."""
        return self.dataset.pool_targets[: self.split]

    def held(self) -> Tensor:
        """Classes of the last sixth."""
        return torch.from_numpy(np.ascontiguousarray(self.dataset.pool_targets[self.split :]))


def config_of(dataset: Dataset, name: str, views: int) -> SimCLRConfig:
    """The dataset's recipe with a variant's changes, for about so many views."""
    base = replace(recipe(dataset.name).pretrain, encoder=ENCODER, **START)
    config = replace(base, **VARIANTS[name])
    images = Parts(dataset).split
    return replace(
        config,
        epochs=max(1, math.ceil(views / config.views / images)),
        budget_minutes=None,
        warmup_epochs=0.05 * views / config.views / images,
        probe_every=10**9,
    )


def measure(dataset: Dataset, config: SimCLRConfig, views: int) -> dict[str, Any]:
    """Pre-train, then ask: neighbours among many labels, and heads on few."""
    parts = Parts(dataset)
    assert config.epochs is not None
    images = min(parts.split, views // config.views // config.epochs)
    model = pretrain(dataset.pool[:images], config, dataset.preprocessing, run=Run())
    values: dict[str, Any] = {"seconds": round(model.report["seconds"], 1)}
    for layer, (pool, held) in _layers(dataset, model).items():
        found = few_labels(parts, pool, held)
        values |= {f"{layer}-{name}": value for name, value in found.items()}
    return values


def _layers(dataset: Dataset, model: Pretrained) -> dict[str, tuple[Tensor, Tensor]]:
    everything = features(model.encoder, dataset.pool, dataset.preprocessing)
    with torch.no_grad():
        hidden = model.projection.first_layer().eval()(everything)
    split = Parts(dataset).split
    both = {"encoder": everything, "projection": hidden}
    return {layer: (found[:split], found[split:]) for layer, found in both.items()}


def few_labels(parts: Parts, pool_ND: Tensor, held_MD: Tensor) -> dict[str, float]:
    """Accuracy of neighbours, and mean accuracy of both heads over the draws, in per cent."""
    many, held = min(REFERENCES, len(pool_ND)), parts.held()
    targets = torch.from_numpy(parts.targets)
    knn = knn_accuracy(pool_ND[:many], targets[:many], held_MD, held)
    found: dict[str, list[float]] = {"linear": [], "prototype": []}
    for seed in DRAWS:
        rows = draw_labels(parts.targets, PER_CLASS, seed=seed)
        for method, values in found.items():
            fitter = HeadFitter(
                method=method, class_count=parts.dataset.classes, solver="lbfgs",
                weights_K=None, seed=seed,
            )  # fmt: skip
            head, _ = fitter.fit(pool_ND[rows], targets[rows])
            values.append(accuracy(head.logits(held_MD), held))
    means = {method: float(np.mean(values)) for method, values in found.items()}
    return {name: round(100 * value, 2) for name, value in {"knn": knn, **means}.items()}


def main() -> None:
    """Compute what is missing, print a line a variant and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(VARIANTS))
    parser.add_argument("--dataset", default="fashion-mnist", choices=("fashion-mnist", "digits"))
    parser.add_argument("--views", type=int, help="in all of a pre-training")
    options = parser.parse_args()
    dataset, results = load(options.dataset), Results(RESULTS / "tuning")
    views = options.views or VIEWS[options.dataset]
    print(", ".join(f"{name} {version}" for name, version in versions().items()), flush=True)
    printed: dict[str, Any] = {}
    for name in options.names or VARIANTS:
        config = config_of(dataset, name, views)
        cell, settings = Cell(dataset.name, PER_CLASS, 0, name), {"pretrain": config.to_dict()}
        values = results.read(cell, settings)
        if values is None:
            values = measure(dataset, config, views)
            results.write(cell, settings, values)
        printed[name] = {key: values[key] for key in sorted(values) if "-" in key}
        told = ", ".join(f"{key} {value:.2f}" for key, value in printed[name].items())
        print(f"{name:16s} {told}", flush=True)
    print(json.dumps(printed))


if __name__ == "__main__":
    main()
