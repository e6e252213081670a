"""After each migration the database takes what the code from before it reads and writes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, inspect, text

from core.db.migrating import migration_config, upgrade
from tests.jobs_database import empty_database

# The last that was written before there was a service to keep running.
LAST_BEFORE = "0006"
CONTRACTS = "CONTRACTS"  # see tests/contract/test_migrations_expand.py
VALUE = re.compile(r"'([^']*)'")


@dataclass(frozen=True)
class Table:
    """What statements of older code may meet."""

    columns: dict[str, dict[str, Any]]
    unique: set[tuple[str, ...]]
    references: set[tuple[str, ...]]
    checks: dict[str, str]


def schema(engine: Engine | Connection) -> dict[str, Table]:
    seen = inspect(engine)
    columns, indexes = seen.get_multi_columns(), seen.get_multi_indexes()
    references, checks = seen.get_multi_foreign_keys(), seen.get_multi_check_constraints()
    return {
        table[1]: Table(
            {column["name"]: dict(column) for column in columns[table]},
            {
                tuple(sorted(str(column) for column in index["column_names"]))
                for index in indexes[table]
                if index["unique"]
            },
            {tuple(sorted(key["constrained_columns"])) for key in references[table]},
            {str(one["name"]): one["sqltext"] for one in checks[table]},
        )
        for table in columns
    }


def faults(before: Table, after: Table) -> Iterator[str]:
    """What older code would trip over."""
    for name, column in before.columns.items():
        now = after.columns.get(name)
        if now is None:
            yield f"{name} is gone or has another name"
        elif str(now["type"]) != str(column["type"]):
            yield f"{name} was {column['type']} and is {now['type']}"
        elif column["nullable"] and not now["nullable"]:
            yield f"{name} may not be null any more"
        elif column["default"] is not None and now["default"] is None and not now["nullable"]:
            yield f"{name} has no default any more"
    for name in after.columns.keys() - before.columns.keys():
        column = after.columns[name]
        if not column["nullable"] and column["default"] is None:
            yield f"{name} is new, and has to be given"
    old = before.columns.keys()
    for kind, then, new in (
        ("has to be unique", before.unique, after.unique),
        ("has to refer to a row", before.references, after.references),
    ):
        yield from (f"{columns} {kind}" for columns in new - then if old >= set(columns))
    yield from _stricter_checks(before, after)


def _stricter_checks(before: Table, after: Table) -> Iterator[str]:
    added = after.columns.keys() - before.columns.keys()
    for name, said in after.checks.items():
        then = before.checks.get(name)
        if then is None and not any(re.search(rf"\b{column}\b", said) for column in added):
            yield f"{name} is new: {said}"
        if then is not None and (lost := set(VALUE.findall(then)) - set(VALUE.findall(said))):
            yield f"{name} does not allow {sorted(lost)} any more"


def revisions() -> list[Script]:
    """From the last one before the service on."""
    found = ScriptDirectory.from_config(migration_config()).walk_revisions()
    ordered = list(reversed(list(found)))
    first = [script.revision for script in ordered].index(LAST_BEFORE)
    return ordered[first:]


@pytest.fixture(scope="module")
def url(postgres_url: str) -> Iterator[str]:
    with empty_database(postgres_url) as url:
        yield url


def test_each_migration_keeps_what_older_code_uses(url: str) -> None:
    engine = create_engine(url)
    last, *later = revisions()
    upgrade(url, last.revision)
    before = schema(engine)
    found: list[str] = []
    for script in later:
        upgrade(url, script.revision)
        after = schema(engine)
        if not hasattr(script.module, CONTRACTS):
            gone = before.keys() - after.keys()
            found += [f"{script.revision}: the table {name} is gone" for name in sorted(gone)]
            for name in sorted(before.keys() & after.keys()):
                wrong = faults(before[name], after[name])
                found += [f"{script.revision}: {name}: {fault}" for fault in wrong]
        before = after
    engine.dispose()
    assert found == []
    assert len(later) >= 9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ALTER TABLE jobs RENAME COLUMN worker TO host", "worker is gone"),
        ("ALTER TABLE jobs ALTER COLUMN worker SET NOT NULL", "worker may not be null"),
        ("ALTER TABLE jobs ALTER COLUMN priority TYPE smallint", "priority was INTEGER"),
        ("ALTER TABLE jobs ALTER COLUMN priority DROP DEFAULT", "priority has no default"),
        ("ALTER TABLE jobs ADD COLUMN must text NOT NULL", "must is new"),
        ("CREATE UNIQUE INDEX ON jobs (worker)", r"'worker'.* unique"),
        ("ALTER TABLE jobs ADD CHECK (length(worker) > 3)", "is new: "),
        (
            "ALTER TABLE jobs DROP CONSTRAINT ck_jobs_device_known, "
            "ADD CONSTRAINT ck_jobs_device_known CHECK (device IN ('cpu', 'tpu'))",
            r"not allow \['gpu'\]",
        ),
    ],
)
def test_what_would_break_older_code_is_seen(url: str, change: str, said: str) -> None:
    upgrade(url)
    engine = create_engine(url)
    before = schema(engine)["jobs"]
    with engine.connect() as connection, connection.begin() as transaction:
        connection.execute(text(change))
        found = list(faults(before, schema(connection)["jobs"]))
        transaction.rollback()
    engine.dispose()
    assert len(found) == 1
    assert re.search(said, found[0])
