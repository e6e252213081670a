"""The pictures of docs/learning.md, drawn by the code that trains.

Augmented views of digits and photographs; a map of the digits' features before and after
pre-training; accuracy by the number of labels, from what `benchmarks.label_efficiency` measured.

Run with: python -m benchmarks.learning_pictures [--only views map curve]
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image
from sklearn.manifold import TSNE

from benchmarks.cells import RESULTS
from benchmarks.datasets import Dataset, digits, draw_labels
from core.jobs.plan import DataFacts, plan_pretrain
from core.learning.augmentations import PRESETS, augment
from core.learning.determinism import generator, seed_everything
from core.learning.encoders import Encoder, create_encoder
from core.learning.evaluation import features, knn_accuracy
from core.learning.run import Run
from core.learning.simclr import SimCLRConfig, pretrain
from core.stages.pretrain import PLANNED

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
LABEL_RESULTS = RESULTS / "labels"  # of benchmarks.label_efficiency
MOST_BYTES = 150_000
INK = "#222222"
# Made for colour-blind readers (arXiv 2107.02270); printed in grey the digits themselves tell.
TEN = mpl.color_sequences["petroff10"]
METHODS = {
    "distill": ("distill", "#0072B2", "o", "-"),
    "finetune": ("finetune", "#D55E00", "s", "-"),
    "scratch": ("from scratch", "#555555", "^", "--"),
    "pixels_knn": ("raw pixels, nearest neighbours", "#999999", "v", ":"),
}
Pixels = NDArray[np.uint8]
# Left, top and side of square crops of scikit-learn's photographs.
CROPS = {
    "china.jpg": [(45, 20, 330), (330, 110, 300)],
    "flower.jpg": [(155, 68, 300)],
}
LABELS, DRAWS = 5, 5  # a class; how often they are drawn
DPI = 100
VIEW = 80  # pixels of a view in the picture
CELL = VIEW + 4
BETWEEN, HEADING = 20, 30


def main() -> None:
    """Draw what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    drawings = {"views": draw_views, "map": draw_map, "curve": draw_curve}
    parser.add_argument("--only", nargs="+", choices=drawings, default=list(drawings))
    options = parser.parse_args()
    mpl.use("agg")
    mpl.rcParams.update({"font.size": 11, "text.color": INK, "axes.labelcolor": INK})
    mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        drawings[name]()


def draw_views() -> None:
    """Rows of an image and its views: digits, then photographs under two presets."""
    dataset = digits()
    rows = [int(np.flatnonzero(dataset.pool_targets == digit)[3]) for digit in (2, 4, 6)]
    _draw_grid("views-digits", dataset.pool[rows], {"document": 7})
    photographs = [
        load_sample_image(name)[top : top + side, left : left + side]
        for name, squares in CROPS.items()
        for left, top, side in squares
    ]
    canvases = [
        np.asarray(Image.fromarray(crop).resize((VIEW, VIEW), Image.Resampling.BOX))
        for crop in photographs
    ]
    _draw_grid("views-photographs", np.stack(canvases), {"photo": 4, "microscopy": 4})


def _draw_grid(name: str, images: Pixels, presets: Mapping[str, int]) -> None:
    """A row for each image: as the network gets it, then views under each preset."""
    blocks = [("as uploaded", images[None])]
    for preset, count in presets.items():
        levels = augment(
            torch.from_numpy(images),
            config=PRESETS[preset],
            views=count,
            generator=generator(7, "cpu"),
        )
        channels_last = levels.permute(0, 1, 3, 4, 2).mul(255).round().byte().numpy()
        blocks.append((preset, channels_last))
    width = sum(len(views) for _, views in blocks) * CELL + BETWEEN * len(blocks)
    height = len(images) * CELL + HEADING
    figure = pyplot.figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    left = BETWEEN / 2
    for title, views in blocks:
        across = len(views) * CELL
        place = (left / width, 2 / height, across / width, len(images) * CELL / height)
        axes = figure.add_axes(place)
        axes.imshow(_mosaic(views), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(title, fontsize=11, pad=5)
        axes.set_axis_off()
        left += across + BETWEEN
    _save(figure, name, colours=256)


def _mosaic(views: Pixels) -> Pixels:
    """(V, B, S, S, C) as one picture, a row for each image, enlarged without smoothing."""
    count, images, side, _, channels = views.shape
    large = views.repeat(VIEW // side, axis=2).repeat(VIEW // side, axis=3)
    picture = np.full((images * CELL, count * CELL, channels), 255, np.uint8)
    for column in range(count):
        for row in range(images):
            top, left = row * CELL + 2, column * CELL + 2
            picture[top : top + VIEW, left : left + VIEW] = large[column, row]
    return picture if channels == 3 else picture[..., 0]


def draw_map() -> None:
    """Features of images that no training saw, before and after pre-training."""
    dataset = digits()
    facts = DataFacts(
        images=len(dataset.pool), labels_per_class={}, greyscale=True, median_short_side=8
    )
    plan = plan_pretrain({}, facts, "cpu")
    config = _config(plan)
    seed_everything(config.seed)
    untrained = create_encoder(
        config.encoder, image_size=config.image_size, channels=config.channels
    ).eval()
    trained = pretrain(dataset.pool, config, dataset.preprocessing, run=Run())
    figure, panels = pyplot.subplots(1, 2, figsize=(9.6, 4.9), dpi=DPI)
    titles = ("random weights", f"after {trained.report['steps']} steps without labels")
    for axes, title, encoder in zip(panels, titles, (untrained, trained.encoder), strict=True):
        accuracy = _draw_panel(axes, encoder, dataset)
        named = f"named by the most similar of {LABELS * dataset.classes} labelled images"
        axes.set_title(f"{title}\n{named}: {100 * accuracy:.1f} %", fontsize=11)
        print(f"map: {title}: {accuracy:.4f}")
    figure.tight_layout(w_pad=2)
    _save(figure, "map-digits", colours=128)


def _config(plan: Mapping[str, Any]) -> SimCLRConfig:
    """As the pretrain stage makes it of a plan."""
    preset = PRESETS[plan["augmentation"]].scaled(plan["augmentation_strength"])
    values = {name: plan[name] for name in PLANNED if name in plan}
    return SimCLRConfig(**values, augmentation=preset)


def _draw_panel(axes: Axes, encoder: Encoder, dataset: Dataset) -> float:
    """Where t-SNE puts the test images; how many a single neighbour names right.

    The accuracy is the mean over draws of the labelled images.
    """
    pool = features(encoder, dataset.pool, dataset.preprocessing)
    test = features(encoder, dataset.test, dataset.preprocessing)
    draws = [draw_labels(dataset.pool_targets, LABELS, seed=seed) for seed in range(DRAWS)]
    accuracies = [
        knn_accuracy(
            pool[rows],
            torch.from_numpy(dataset.pool_targets[rows]),
            test,
            torch.from_numpy(dataset.test_targets),
            neighbours=1,
        )
        for rows in draws
    ]
    places = TSNE(metric="cosine", perplexity=30, random_state=0).fit_transform(test.numpy())
    for digit in range(dataset.classes):
        chosen = places[dataset.test_targets == digit]
        axes.scatter(
            chosen[:, 0],
            chosen[:, 1],
            marker=f"${digit}$",
            color=TEN[digit],
            s=26,
            linewidths=0.2,
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[:].set(visible=True, color="#cccccc")
    return statistics.mean(accuracies)


def draw_curve() -> None:
    """Accuracy by labels a class, if it was measured."""
    measured = {folder.name: _cells(folder) for folder in sorted(LABEL_RESULTS.glob("*"))}
    measured = {name: cells for name, cells in measured.items() if cells}
    if not measured:
        print(
            f"curve: no results in {LABEL_RESULTS}, so nothing is drawn; "
            "python -m benchmarks.label_efficiency makes them"
        )
        return
    size = (5.0 * max(len(measured), 1.4), 4.8)
    figure, panels = pyplot.subplots(1, len(measured), figsize=size, dpi=DPI, squeeze=False)
    for axes, (name, cells) in zip(panels[0], measured.items(), strict=True):
        _draw_curves(axes, cells)
        axes.set_title(name)
    panels[0][0].set_ylabel("accuracy on test images, %")
    figure.suptitle("bars: standard deviation over draws of the labels", fontsize=10, y=0.98)
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=len(names), frameon=False, fontsize=10)
    figure.tight_layout(rect=(0, 0.07, 1, 1), w_pad=2)
    _save(figure, "label-efficiency", colours=64)


def _cells(folder: Path) -> dict[tuple[str, int], list[float]]:
    """Accuracies in per cent of all draws, by method and labels a class.

    Raises:
        ValueError: Some draws were measured with other settings than the rest.
    """
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    settings: dict[tuple[str, int], Any] = {}
    for path in sorted(folder.glob("*-*-*.json")):
        per_class, _, method = path.stem.split("-", 2)
        key = (method, int(per_class))
        if method not in METHODS:
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        of_cell = {k: value for k, value in record["settings"].items() if k != "draw"}
        if settings.setdefault(key, of_cell) != of_cell:
            raise ValueError(
                f"{path}: measured with other settings than the other draws; "
                "python -m benchmarks.label_efficiency measures again what is stale"
            )
        found[key].append(100 * record["accuracy"])
    return found


def _draw_curves(axes: Axes, cells: Mapping[tuple[str, int], Sequence[float]]) -> None:
    amounts = sorted({per_class for _, per_class in cells})
    for shift, (method, (title, colour, marker, line)) in enumerate(METHODS.items()):
        known = [amount for amount in amounts if (method, amount) in cells]
        draws = [cells[method, amount] for amount in known]
        axes.errorbar(
            # A little apart, so that the bars do not cover each other.
            [amount * 1.03 ** (shift - 1.5) for amount in known],
            [statistics.mean(values) for values in draws],
            [statistics.stdev(values) if len(values) > 1 else 0.0 for values in draws],
            label=title,
            color=colour,
            marker=marker,
            linestyle=line,
            capsize=3,
        )
    axes.set_xscale("log")
    axes.set_xticks(amounts, [str(amount) for amount in amounts])
    axes.minorticks_off()
    axes.set_xlabel("labels a class")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)


def _save(figure: Figure, name: str, *, colours: int) -> None:
    """A PNG with a palette: such pictures live in the repository for ever."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    pyplot.close(figure)
    picture = Image.open(buffer).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    path = PICTURES / f"{name}.png"
    picture.save(path, optimize=True)
    print(f"{path.relative_to(PICTURES.parents[1])}: {path.stat().st_size / 1000:.0f} kB")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path}: more than {MOST_BYTES / 1000:.0f} kB")


if __name__ == "__main__":
    main()
