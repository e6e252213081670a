"""Ways to cut random crops out of a batch and resize them, and whole augmentation, on the CPU.

    python -m benchmarks.crop_ways [--rounds 5] [--threads 2]

Every way gets the same uint8 canvases (as large as the views) and the same crops, and leaves
float32 planes behind. The ways take turns, and the best of the rounds counts, because other
processes may share the machine: read the ratios. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torchvision
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).parents[1]))

from core.learning.augmentations import PRESETS, AugmentationConfig, augment
from core.learning.augmentations.moves import Moves, draw_moves
from core.learning.augmentations.resampling import by_grid, by_products, planes
from core.learning.memory import keep_freed_memory

VIEWS = 2
BATCH = {32: 256, 96: 64, 224: 16}
PART_VALUES = 2**19
CROPS = AugmentationConfig(crop_area=(0.08, 1.0), crop_ratio=4 / 3, flip=0.5)
Way = Callable[[], object]


class Cases:
    """A batch of one size, its crops, and every way to carry them out."""

    def __init__(self, size: int) -> None:
        torch.manual_seed(0)
        self.size, self.batch = size, BATCH[size]
        self.count = self.batch * VIEWS
        shape = (self.batch, size, size, 3)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8)
        self.sources = torch.arange(self.batch).repeat(VIEWS)
        self.moves = draw_moves(self.count, CROPS, torch.Generator().manual_seed(0))
        lefts, widths = whole_pixels(self.moves.centre_x_N, self.moves.width_N, size)
        tops, heights = whole_pixels(self.moves.centre_y_N, self.moves.height_N, size)
        self.boxes = list(zip(tops, lefts, heights, widths, strict=True))
        step = max(1, PART_VALUES // (3 * size * size))
        self.parts = [slice(start, start + step) for start in range(0, self.count, step)]

    def grid_repeated(self, layout: torch.memory_format) -> Tensor:
        """All views as float copies of the images, then one call."""
        repeated = planes(self.images).repeat(VIEWS, 1, 1, 1).to(memory_format=layout)
        grid = functional.affine_grid(self.moves.maps(), list(repeated.shape), align_corners=False)
        return functional.grid_sample(repeated, grid, padding_mode="border", align_corners=False)

    def in_parts(self, way: Callable[[Tensor, Tensor, Moves], Tensor]) -> Tensor:
        """Parts that fit into the caches."""
        out = torch.empty(self.count, 3, self.size, self.size)
        for part in self.parts:
            out[part] = way(self.images, self.sources[part], self.moves[part])
        return out

    def kernel(self) -> Tensor:
        """As `augment` does it: compiled, and nothing but the crops (drawing them included)."""
        generator = torch.Generator().manual_seed(0)
        return augment(self.images, config=CROPS, views=VIEWS, generator=generator)

    def products_bfloat16(self) -> Tensor:
        """Half the bits, so twice the multiplications a second where the CPU has them."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.in_parts(by_products)

    def gathered(self) -> Tensor:
        """Four neighbours of every pixel by index, mixed by their distance."""
        out = torch.empty(self.count, 3, self.size, self.size)
        for part in self.parts:
            out[part] = gather_bilinear(self.images, self.sources[part], self.moves[part])
        return out

    def one_by_one(self, resize: Callable[[Tensor, tuple[int, int, int, int]], Tensor]) -> Tensor:
        """A call for each view."""
        channels_first = self.images.permute(0, 3, 1, 2)
        out = torch.empty(self.count, 3, self.size, self.size)
        flipped = (self.moves.mirror_x_N < 0).tolist()
        for row, box in enumerate(self.boxes):
            view = resize(channels_first[row % self.batch], box)
            out[row] = view.flip(-1) if flipped[row] else view
        return out

    def loaded(self, loader: DataLoader[Tensor]) -> Tensor:
        """Views that other processes made."""
        return torch.cat([views.float() for views in loader])

    def ways(self) -> dict[str, Way]:
        """By name; the first is what the others are compared with."""
        size = [self.size, self.size]

        def torchvision_crop(image: Tensor, box: tuple[int, ...], antialias: bool) -> Tensor:
            cut: Tensor = v2.functional.resized_crop(image, *box, size, antialias=antialias)
            return cut

        def interpolated(
            image: Tensor, box: tuple[int, int, int, int], dtype: torch.dtype
        ) -> Tensor:
            top, left, height, width = box
            cut = image[None, :, top : top + height, left : left + width].to(dtype)
            return functional.interpolate(cut, size=size, mode="bilinear")[0]

        workers: DataLoader[Tensor] = DataLoader(
            Crops(self), batch_size=64, num_workers=2, persistent_workers=True
        )
        floats, whole = (partial(interpolated, dtype=d) for d in (torch.float32, torch.uint8))
        plain, antialiased = (partial(torchvision_crop, antialias=a) for a in (False, True))
        return {
            "grid_sample, repeated batch": lambda: self.grid_repeated(torch.contiguous_format),
            "grid_sample, channels last": lambda: self.grid_repeated(torch.channels_last),
            "grid_sample, in parts": lambda: self.in_parts(grid),
            "two products": lambda: self.in_parts(by_products),
            "two products, bfloat16": self.products_bfloat16,
            "gather of four neighbours": self.gathered,
            "interpolate, float32, one by one": lambda: self.one_by_one(floats),
            "torchvision resized_crop, bytes": lambda: self.one_by_one(plain),
            "the same, antialias": lambda: self.one_by_one(antialiased),
            "the same, 2 DataLoader workers": lambda: self.loaded(workers),
            "interpolate, bytes, one by one": lambda: self.one_by_one(whole),
            "compiled kernel": self.kernel,
        }


class Crops(Dataset[Tensor]):
    """Antialiased torchvision crops for DataLoader workers."""

    def __init__(self, cases: Cases) -> None:
        self.cases = cases

    def __len__(self) -> int:
        return self.cases.count

    def __getitem__(self, row: int) -> Tensor:
        cases = self.cases
        image = cases.images[row % cases.batch].permute(2, 0, 1)
        size = [cases.size, cases.size]
        cut: Tensor = v2.functional.resized_crop(image, *cases.boxes[row], size, antialias=True)
        return cut


def grid(images: Tensor, sources: Tensor, moves: Moves) -> Tensor:
    """`by_grid` with the signature of the others."""
    return by_grid(images, sources, moves.maps())


def whole_pixels(centre: Tensor, share: Tensor, size: int) -> tuple[list[int], list[int]]:
    """First pixel and number of pixels along one axis."""
    length = (share * size).round().clamp(1, size)
    first = ((centre - share + 1) * (size / 2)).round().clamp(min=0)
    return torch.minimum(first, size - length).int().tolist(), length.int().tolist()


def gather_bilinear(images: Tensor, sources: Tensor, moves: Moves) -> Tensor:
    """Rows by index, mixed; then columns by index, mixed."""
    size = images.shape[1]
    pixel = torch.arange(size) - (size - 1) / 2

    def positions(centre: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        at = pixel * scale[:, None] + (centre * size / 2 + (size - 1) / 2)[:, None]
        at = at.clamp(0, size - 1)
        first = at.long()
        return first, (first + 1).clamp(max=size - 1), at - first

    top, bottom, down = positions(moves.centre_y_N, moves.height_N)
    left, right, across = positions(moves.centre_x_N, moves.width_N * moves.mirror_x_N)
    source = sources[:, None]
    rows = torch.lerp(
        images[source, top].float(),
        images[source, bottom].float(),
        down[:, :, None, None],
    )
    columns = torch.lerp(
        torch.take_along_dim(rows, left[:, None, :, None], 2),
        torch.take_along_dim(rows, right[:, None, :, None], 2),
        across[:, None, :, None],
    )
    return columns.permute(0, 3, 1, 2)


def whole_ways(size: int, preset: str) -> dict[str, Way]:
    """All operations of SimCLR: torchvision an image at a time, and this project's `augment`."""
    cases, config = Cases(size), PRESETS[preset]
    jitter = v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
    blurs = [v2.RandomApply([v2.GaussianBlur(size // 20 * 2 + 1, (0.1, 2.0))], config.blur)]
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(size, config.crop_area, antialias=True),
            v2.RandomHorizontalFlip(config.flip),
            v2.RandomApply([jitter], config.jitter),
            v2.RandomGrayscale(config.grey),
            *(blurs if config.blur else []),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    channels_first = cases.images.permute(0, 3, 1, 2)
    generator = torch.Generator()
    return {
        f"torchvision v2, {preset}": lambda: torch.stack(
            [transform(image) for _ in range(VIEWS) for image in channels_first]
        ),
        f"augment, {preset}": lambda: augment(
            cases.images, config=config, views=VIEWS, generator=generator.manual_seed(0)
        ),
    }


def measure(ways: dict[str, Way], views: int, rounds: int) -> dict[str, dict[str, float]]:
    """Views a second by the wall and by CPU time, the best of the rounds; a way at a time."""
    best = {name: [float("inf"), float("inf")] for name in ways}
    for _ in range(rounds + 1):  # the first warms up, and may count too
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            best[name] = [min(pair) for pair in zip(best[name], spent, strict=True)]
    return {
        name: {"views_per_second": views / wall, "cpu_ms_per_view": cpu / views * 1000}
        for name, (wall, cpu) in best.items()
    }


def show(size: int, found: dict[str, dict[str, float]]) -> None:
    """One table in Markdown; ratios are to its first line."""
    first = next(iter(found.values()))
    print(f"\n| {size} px | views/s | × | CPU ms a view | × |\n|---|---|---|---|---|")
    for name, row in found.items():
        rate, cpu = row["views_per_second"], row["cpu_ms_per_view"]
        faster, cheaper = rate / first["views_per_second"], first["cpu_ms_per_view"] / cpu
        cells = "– | –" if "workers" in name else f"{cpu:.3f} | {cheaper:.1f}"
        print(f"| {name} | {rate:,.0f} | {faster:.1f} | {cells} |")


def main() -> None:
    """Print a table a size and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_freed_memory()  # as the worker does; all ways have it
    machine = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "threads": asked.threads,
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "load": os.getloadavg(),
        "command": " ".join(["python", "-m", "benchmarks.crop_ways", *sys.argv[1:]]),
    }
    print(machine)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for size in BATCH:
        results[f"crop {size}"] = measure(Cases(size).ways(), BATCH[size] * VIEWS, asked.rounds)
        show(size, results[f"crop {size}"])
    for size, preset in ((32, "small"), (96, "photo"), (224, "photo")):
        ways = whole_ways(size, preset)
        results[f"whole {size}"] = measure(ways, BATCH[size] * VIEWS, asked.rounds)
        show(size, results[f"whole {size}"])
    print(json.dumps({"benchmark": "crop_ways", **machine, "results": results}))


if __name__ == "__main__":
    main()
