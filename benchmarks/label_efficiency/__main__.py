"""Does this need fewer labels than plain training? Accuracy by labels a class, method by method.

One pre-training on all images without their labels; then, for several draws of 10, 60 and 100
labels a class: nearest neighbours on raw pixels and on the encoder's features, the same network
from scratch, finetuning (heads on the frozen encoder; from 20 labels a class on the stage also
compares training everything), supervised contrastive learning, and distillation to the same and to
a smaller network. Each cell is recorded with its settings in benchmarks/results/labels, the encoder
beside them; what is there is not computed again.

Run with: python -m benchmarks.label_efficiency [--fresh] [--quick] [--dataset digits]
    [--method scratch] [--labels 10]
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cells import RESULTS, Cell, Results, spread, versions
from benchmarks.datasets import Dataset, load
from benchmarks.label_efficiency.encoder import Kept
from benchmarks.label_efficiency.methods import METHODS, Draw, reference_knn
from benchmarks.label_efficiency.recipes import Recipe, recipe
from core.learning.memory import keep_freed_memory

DRAWS = {10: 5, 60: 3, 100: 3}
DATASETS = ("fashion-mnist", "digits")
SHOWN = {
    "pixels_knn": "raw pixels, nearest neighbours",
    "encoder_knn": "encoder, nearest neighbours",
    "scratch": "from scratch",
    "finetune": "finetune",
    "supcon": "SupCon",
    "distill": "distill, same encoder",
    "distill_small": "distill, smaller encoder",
}


def compute(
    dataset: Dataset,
    chosen: Recipe,
    results: Results,
    draws: dict[int, int],
    methods: Sequence[str],
) -> None:
    """Fill in the cells of these methods that are missing."""
    kept = Kept(results.folder / dataset.name, chosen.pretrain)
    model = kept.load(dataset)
    digest = kept.digest()
    settings = {"encoder": digest}
    cell = Cell(dataset.name, 0, 0, "reference_knn")
    if results.read(cell, settings) is None:
        results.write(cell, settings, {**reference_knn(dataset, model.encoder), **model.report})
    for per_class, count in draws.items():
        for seed in range(count):
            draw = Draw(dataset, chosen, model, digest, per_class, seed)
            for method in methods:
                cell = Cell(dataset.name, per_class, seed, method)
                settings = draw.settings(method)
                if results.read(cell, settings) is not None:
                    continue
                values = draw.measure(method)
                results.write(cell, settings, values)
                print(
                    f"  {dataset.name} {per_class} a class, draw {seed}: {method} "
                    f"{100 * values['accuracy']:.2f} % in {values['seconds']:.0f} s",
                    flush=True,
                )


def table(
    dataset: Dataset, chosen: Recipe, results: Results, draws: dict[int, int]
) -> dict[str, Any]:
    """Mean and standard deviation of each method, in per cent, as far as it was measured."""
    rows: dict[str, Any] = {}
    digest = Kept(results.folder / dataset.name, chosen.pretrain).digest()
    for per_class, count in draws.items():
        row: dict[str, list[float] | None] = {}
        for method in METHODS:
            found = []
            for seed in range(count):
                draw = Draw(dataset, chosen, None, digest, per_class, seed)
                cell = Cell(dataset.name, per_class, seed, method)
                record = results.read(cell, draw.settings(method))
                found += [] if record is None else [record["accuracy"]]
            row[method] = spread(found)
        rows[str(per_class)] = row
    return rows


def show(dataset: Dataset, chosen: Recipe, results: Results, rows: dict[str, Any]) -> None:
    """The table as Markdown."""
    print(f"\n{dataset.name}, accuracy in % on {len(dataset.test):,} test images")
    print(f"| labels a class | {' | '.join(rows)} |")
    print(f"|---|{'---|' * len(rows)}")
    for method, title in SHOWN.items():
        cells = [
            "-" if row[method] is None else f"{row[method][0]:.2f} ± {row[method][1]:.2f}"
            for row in rows.values()
        ]
        print(f"| {title} | {' | '.join(cells)} |")
    digest = Kept(results.folder / dataset.name, chosen.pretrain).digest()
    record = results.read(Cell(dataset.name, 0, 0, "reference_knn"), {"encoder": digest})
    if record is not None:
        print(
            f"20 neighbours among up to 10,000 labelled images: encoder "
            f"{100 * record['encoder']:.2f} %, raw pixels {100 * record['pixels']:.2f} %; "
            f"pre-training {record['steps']:,} steps in {record['seconds'] / 60:.1f} minutes"
        )


def main() -> None:
    """Compute what is missing, print the tables and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fresh", action="store_true", help="start over")
    parser.add_argument("--quick", action="store_true", help="one draw, a tenth of the training")
    parser.add_argument("--dataset", choices=DATASETS, action="append")
    parser.add_argument("--method", choices=METHODS, action="append", help="these alone")
    parser.add_argument("--labels", type=int, choices=DRAWS, action="append", help="a class")
    parser.add_argument("--show", action="store_true", help="print what is there, compute nothing")
    options = parser.parse_args()
    folder: Path = RESULTS / ("labels-quick" if options.quick else "labels")
    results = Results(folder)
    keep_freed_memory()
    draws = dict.fromkeys(DRAWS, 1) if options.quick else DRAWS
    draws = {count: draws[count] for count in options.labels or draws}
    printed: dict[str, Any] = {}
    started = time.perf_counter()
    print("python -m benchmarks.label_efficiency" + (" --quick" if options.quick else ""))
    print(", ".join(f"{name} {version}" for name, version in versions().items()), flush=True)
    for name in options.dataset or DATASETS:
        dataset, chosen = load(name), recipe(name)
        if options.quick:
            chosen = chosen.quick()
        if options.fresh:
            shutil.rmtree(folder / name, ignore_errors=True)
        if not options.show:
            compute(dataset, chosen, results, draws, options.method or list(METHODS))
        printed[name] = table(dataset, chosen, results, draws)
        show(dataset, chosen, results, printed[name])
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes")
    print(json.dumps(printed))


if __name__ == "__main__":
    main()
