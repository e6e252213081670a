"""Many rows in one statement: an array for each column, instead of a parameter for each value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Boolean,
    ColumnClause,
    Integer,
    Text,
    Uuid,
    column,
    func,
    literal,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.selectable import TableValuedAlias

KINDS: dict[str, type[BigInteger | Boolean | Integer | Text | Uuid[UUID]]] = {
    "bigint": BigInteger,
    "boolean": Boolean,
    "integer": Integer,
    "text": Text,
    "uuid": Uuid,
}


def rows_of(**columns: tuple[str, Sequence[Any]]) -> TableValuedAlias:
    """A table to select from or join with: `rows_of(name=("text", names))` has a column `name`.

    Joined rather than asked for with IN or ANY, it is hashed whatever plan the database keeps.
    """
    arrays: list[BindParameter[Any]] = []
    named: list[ColumnClause[Any]] = []
    for name, (kind, values) in columns.items():
        arrays.append(literal(list(values), ARRAY(KINDS[kind])))
        named.append(column(name, KINDS[kind]()))
    return func.unnest(*arrays).table_valued(*named).render_derived()
