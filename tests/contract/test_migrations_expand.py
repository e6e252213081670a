"""A migration may run while the code from before still works on the database."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

VERSIONS = Path(__file__).parents[2] / "migrations" / "versions"
# Written before there was a service to keep running.
BEFORE = {"0001", "0002", "0003", "0004", "0005", "0006"}
FILES = [path for path in sorted(VERSIONS.glob("0*.py")) if path.name[:4] not in BEFORE]
TAKE_AWAY = {"drop_table", "drop_column", "rename_table"}
# A module constant of this name: nobody has used since that version what the migration takes away.
CONTRACTS = "CONTRACTS"


def calls(function: ast.FunctionDef) -> list[tuple[str, ast.Call]]:
    """(name, call) of each `op.name(…)`."""
    return [
        (node.func.attr, node)
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "op"
    ]


def literals(call: ast.Call) -> dict[str, object]:
    return {
        str(given.arg): given.value.value
        for given in call.keywords
        if isinstance(given.value, ast.Constant)
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_there_stays_and_what_is_new_may_be_left_out(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets}  # type: ignore[attr-defined]
    if CONTRACTS in names:
        return
    (upgrade,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "upgrade"]
    for name, call in calls(upgrade):
        assert name not in TAKE_AWAY, name
        given = literals(call)
        if name == "alter_column":
            assert given.get("nullable") is True, "stricter than before"
            assert "new_column_name" not in given
        if name == "add_column":
            (column,) = [a for a in call.args if isinstance(a, ast.Call)]
            values = literals(column)
            assert values.get("nullable") is not False or "server_default" in values


def test_something_was_looked_at() -> None:
    assert len(FILES) >= 8
