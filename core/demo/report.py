"""What came out: accuracies with their intervals, the table, the last line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from core.client import Model
from core.demo.progress import clock

Z_95 = 1.959964
CLASSIFIERS = ("scratch", "finetune", "distill")


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A measured share; `interval` is its 95 % interval."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Row:
    """One model of the table; the time is that of its own job alone."""

    name: str
    model: Model
    accuracy: Accuracy | None
    seconds: float


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo tells at its end; an accuracy is None where it could not be measured."""

    accuracy: Mapping[str, float | None]
    images: int
    labels: int

    def to_json(self, seconds: float) -> dict[str, object]:
        """The last line of the output."""
        rounded = {
            name: None if self.accuracy[name] is None else round(float(self.accuracy[name] or 0), 4)
            for name in CLASSIFIERS
        }
        return {
            "accuracy": rounded,
            "images": self.images,
            "labels": self.labels,
            "seconds": round(seconds, 1),
        }


def accuracy_of(correct: int, total: int) -> Accuracy:
    """An accuracy with its Wilson interval (Wilson 1927, JASA 22:209); total is positive."""
    share = correct / total
    spread = Z_95**2 / total
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return Accuracy(share, (max(0.0, centre - half), min(1.0, centre + half)))


def results_table(rows: Sequence[Row], *, measured_on: str) -> Table:
    """The models; those that answer no classes have no accuracy."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    table.caption = f"  accuracy {measured_on}; training is the time of the model's own job"
    table.caption_justify = "left"
    table.add_column("  model", style="bold")
    table.add_column("encoder")
    table.add_column("parameters", justify="right")
    table.add_column("size", justify="right")
    table.add_column("accuracy", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("training", justify="right")
    for row in rows:
        table.add_row(f"  {row.name}", *_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    accuracy = row.accuracy
    low, high = accuracy.interval if accuracy else (0.0, 0.0)
    return [
        row.model.encoder,
        f"{row.model.parameters / 1e6:.2f} M",
        f"{row.model.byte_count / 1e6:.1f} MB",
        f"[green]{accuracy.value:.1%}[/green]" if accuracy else "–",
        f"{low:.1%} – {high:.1%}" if accuracy else "–",
        clock(row.seconds),
    ]
