"""The figures at the end of the demo."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from core.client import Model
from core.demo.report import DemoResult, Row, accuracy_of, results_table
from core.learning.evaluation import wilson_interval


@pytest.mark.parametrize(("correct", "total"), [(0, 3), (3, 3), (1, 2), (431, 500)])
def test_the_interval_is_the_one_of_the_manifests(correct: int, total: int) -> None:
    found = accuracy_of(correct, total)
    assert found.value == correct / total
    assert found.interval == pytest.approx(wilson_interval(correct, total), abs=1e-5)


def test_the_last_line_is_json_with_nulls_for_what_was_not_measured() -> None:
    result = DemoResult({"scratch": None, "finetune": 2 / 3, "distill": 0.0}, 40, 10)
    assert json.loads(json.dumps(result.to_json(12.345))) == {
        "accuracy": {"scratch": None, "finetune": 0.6667, "distill": 0.0},
        "images": 40,
        "labels": 10,
        "seconds": 12.3,
    }


def test_the_table_fits_into_a_hundred_columns() -> None:
    model = Model("id", "mobilenet_v3_small", 23_456_789, 98_765_432, {})
    rows = [Row("finetune", model, accuracy_of(431, 500), 4000), Row("pretrain", model, None, 62)]
    console = Console(width=100, force_terminal=False)
    with console.capture() as capture:
        console.print(results_table(rows, measured_on="on 500 held-out images"))
    lines = capture.get().rstrip().splitlines()
    assert len(lines) == 5
    assert "23.46 M" in lines[2]
    assert "98.8 MB" in lines[2]
    assert "86.2%" in lines[2]
    assert "82.9% – 88.9%" in lines[2]
    assert lines[2].rstrip().endswith("1:06:40")
    assert "1:02" in lines[3]
    assert "accuracy on 500 held-out images" in lines[4]
    assert max(map(len, lines)) <= 100
