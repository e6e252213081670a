"""What the benchmarks have recorded was measured under today's settings: their tables are whole.

A new option of a stage belongs to the settings of every cell: where it changes nothing, the records
in benchmarks/results get it, too; where it does, the cells are measured again.
"""

from __future__ import annotations

from benchmarks.cells import RESULTS, Results
from benchmarks.datasets import load
from benchmarks.label_efficiency.__main__ import DRAWS, table
from benchmarks.label_efficiency.recipes import recipe


def test_every_cell_of_the_digits_is_found() -> None:
    rows = table(load("digits"), recipe("digits"), Results(RESULTS / "labels"), DRAWS)
    assert {labels: row for labels, row in rows.items() if None in row.values()} == {}
    assert list(rows) == [str(count) for count in DRAWS]
