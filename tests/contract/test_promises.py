"""Each promise of docs/reliability.md names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reliability.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
_, _, TABLE = TEXT.partition("## The promises")
ROWS = [line for line in TABLE.partition("\n## ")[0].splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:50])
def test_a_promise_says_what_it_costs_and_names_tests_that_are_there(row: str) -> None:
    promise, cost, held_by = (cell.strip() for cell in row.strip("|").split("|"))
    assert promise
    assert cost
    named = NAMED.findall(held_by)
    assert named, "a promise without a test"
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path} has no {name}"


def test_there_are_promises() -> None:
    assert len(ROWS) > 10
