"""A curve in a terminal, of Braille dots: two by four in each character."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Of a character's dots by column and row from the top (Unicode, U+2800 to U+28FF).
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
COLUMNS, ROWS = 2, 4
BLANK = 0x2800


def draw(points: Sequence[tuple[int, float]], *, width: int, height: int) -> list[str]:
    """Lines of the curve through (step, value), with the highest and lowest value at the left.

    Each column of dots goes from the lowest to the highest value of its steps, and is joined to
    the one before, so that a peak of a single step is seen.
    """
    shown = [(step, value) for step, value in points if math.isfinite(value)]
    if not shown or width < 1 or height < 1:
        return []
    low, high = min(value for _, value in shown), max(value for _, value in shown)
    spans = _spans(shown, width * COLUMNS)
    cells = [[BLANK] * width for _ in range(height)]
    last_row = height * ROWS - 1
    for column, (bottom, top) in spans.items():
        rows = (_row(top, low, high, last_row), _row(bottom, low, high, last_row))
        for row in range(rows[0], rows[1] + 1):
            cells[row // ROWS][column // COLUMNS] |= DOTS[column % COLUMNS][row % ROWS]
    labels = _labels(low, high, height)
    side = max(map(len, labels))
    return [
        f"{label:>{side}} ┤{''.join(map(chr, line))}"
        for label, line in zip(labels, cells, strict=True)
    ]


def _spans(points: Sequence[tuple[int, float]], columns: int) -> dict[int, tuple[float, float]]:
    """The lowest and highest value of each column, joined by straight lines."""
    first, last = points[0][0], points[-1][0]
    scale = (columns - 1) / (last - first) if last > first else 0.0
    spans: dict[int, tuple[float, float]] = {}
    before, height = 0, points[0][1]
    for step, value in points:
        column = round((step - first) * scale)
        gap = max(1, column - before)
        for number in range(1, gap + 1):
            start = height + (value - height) * (number - 1) / gap
            end = height + (value - height) * number / gap
            place = column - gap + number
            low, high = spans.get(place, (end, end))
            spans[place] = (min(low, start, end), max(high, start, end))
        before, height = column, value
    return spans


def _row(value: float, low: float, high: float, last_row: int) -> int:
    share = 0.5 if high == low else (high - value) / (high - low)
    return round(share * last_row)


def _labels(low: float, high: float, height: int) -> list[str]:
    labels = [""] * height
    labels[-1] = f"{low:.4g}" if low < high else ""
    labels[0] = f"{high:.4g}"
    return labels
