"""Curves of Braille dots show what the numbers say."""

from __future__ import annotations

import io
import math
import random

import pytest
from rich.console import Console

from core.client import Job
from core.monitor.curve import BLANK, DOTS, draw
from core.monitor.screen import Picture


def dots(lines: list[str]) -> set[tuple[int, int]]:
    """(column, row) of each dot, from the upper left."""
    found = set()
    for y, line in enumerate(lines):
        for x, cell in enumerate(line.partition("┤")[2]):
            for column, bits in enumerate(DOTS):
                for row, bit in enumerate(bits):
                    if (ord(cell) - BLANK) & bit:
                        found.add((x * 2 + column, y * 4 + row))
    return found


def test_a_line_goes_from_corner_to_corner() -> None:
    lines = draw([(step, -float(step)) for step in range(1, 9)], width=4, height=2)
    assert dots(lines) >= {(column, column) for column in range(8)}
    assert [line.split(" ┤")[0].strip() for line in lines] == ["-1", "-8"]
    assert dots(draw([(1, 5.0), (8, 1.0)], width=4, height=2)) >= {(0, 0), (7, 7)}


def test_a_peak_of_one_step_is_seen_and_the_curve_has_no_gaps() -> None:
    points = [(step, 0.0) for step in range(1, 5001)]
    points[3000] = (3001, 9.0)
    found = dots(draw(points, width=20, height=3))
    [peak] = {column for column, row in found if row == 0}
    assert {row for column, row in found if column == peak} == set(range(12))
    assert {column for column, _ in found} == set(range(40))


@pytest.mark.parametrize("points", [[], [(1, math.nan)], [(1, math.inf)]])
def test_what_is_no_number_is_not_drawn(points: list[tuple[int, float]]) -> None:
    assert draw(points, width=10, height=2) == []
    assert len(draw([*points, (2, 1.0)], width=10, height=2)) == 2


def test_any_curve_fits_its_place() -> None:
    chance = random.Random(3)
    for _ in range(200):
        steps = sorted(chance.sample(range(10**6), chance.randint(1, 300)))
        points = [(step, chance.gauss(0, 1) * 10 ** chance.randint(-9, 9)) for step in steps]
        lines = draw(points, width=chance.randint(1, 60), height=chance.randint(1, 9))
        assert len({len(line) for line in lines}) == 1


def test_the_picture_has_bar_numbers_curve_and_state() -> None:
    progress = {"phase": "training", "step": 50, "steps": 100, "epoch": 5, "epochs": 10}
    told = {"loss": 2.5, "images_per_second": 1234.5, "seconds_left": 65.0, "message": "look here"}
    job = Job("j1", "pretrain", "running", None, {}, {**progress, **told}, None, None)
    picture = Picture(job, [(step, 100.0 / step) for step in range(1, 60)])
    picture.take(job)
    assert picture.points[-1] == (50, 2.5)  # done again after a checkpoint
    console = Console(record=True, width=90, force_terminal=True, file=io.StringIO())
    console.print(picture)
    shown = console.export_text()
    for part in ("j1", "running", "50/100", "loss 2.500", "1:05 left", "epoch 5 of 10"):
        assert part in shown
    for part in ("1,234 images/s", "look here", "━", "⠀"):
        assert part in shown
    assert max(map(len, shown.splitlines())) <= 90
