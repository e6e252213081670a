"""The migrations make what the ORM says, and can be taken back; constraints refuse wrong rows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.exc import IntegrityError

from core.db import migrating
from core.db.migrating import downgrade, upgrade
from core.db.models import Project
from core.images.formats import FORMATS
from tests.jobs_database import empty_database

SHA = "a" * 64
IDS = {name: str(uuid4()) for name in ("project", "other", "dataset", "image", "job", "model")}


@pytest.fixture(scope="module")
def url(postgres_url: str) -> Iterator[str]:
    with empty_database(postgres_url) as url:
        yield url


@pytest.fixture(scope="module")
def engine(url: str) -> Iterator[Engine]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names()) - {"alembic_version"}


def checks(engine: Engine) -> set[str]:
    statement = text("SELECT conname FROM pg_constraint WHERE contype = 'c'")
    with engine.connect() as connection:
        return set(connection.scalars(statement))


def test_up_down_up_and_the_orm_agrees(url: str, engine: Engine) -> None:
    upgrade(url)
    assert tables(engine) == set(Project.metadata.tables)
    first = checks(engine)
    downgrade(url)
    assert tables(engine) == set()
    upgrade(url)
    upgrade(url)  # again is no error
    assert checks(engine) == first
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Project.metadata) == []
    # Alembic does not compare check constraints.
    named = {
        str(constraint.name)
        for table in Project.metadata.tables.values()
        for constraint in table.constraints
        if type(constraint).__name__ == "CheckConstraint"
    }
    assert named <= first


@pytest.fixture(scope="module")
def rows(url: str, engine: Engine) -> None:
    upgrade(url)
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO projects (id, name) VALUES (:project, 'p'), (:other, 'o')",
            "INSERT INTO datasets (id, project_id, name, test_fraction, validation_fraction) "
            "VALUES (:dataset, :project, 'd', 0.5, 0.4)",
            "INSERT INTO images (id, dataset_id, sha256, width, height, format, greyscale, "
            "byte_count) VALUES (:image, :dataset, repeat('a', 64), 1, 1, 'PNG', false, 1)",
            "INSERT INTO jobs (id, project_id, stage, state, spec, plan, max_attempts, finished_at)"
            " VALUES (:job, :project, 'pretrain', 'succeeded', '{}', '{}', 1, now())",
            "INSERT INTO models (id, project_id, job_id, kind, manifest, manifest_sha256) "
            "VALUES (:model, :project, :job, 'encoder', '{}', repeat('b', 64))",
        ):
            connection.execute(text(statement), IDS)


WRONG = {
    "two of a name": "INSERT INTO datasets SELECT gen_random_uuid(), project_id, name, 0, 0, now() "
    "FROM datasets",
    "fractions": "UPDATE datasets SET test_fraction = 0.6",
    "empty name": "UPDATE datasets SET name = ''",
    "hash": "UPDATE images SET sha256 = 'x'",
    "flat image": "UPDATE images SET width = 0",
    "format": "UPDATE images SET format = 'SVG'",
    "image twice": "INSERT INTO images SELECT gen_random_uuid(), dataset_id, sha256, width, "
    "height, format, greyscale, byte_count, now() FROM images",
    "label of nothing": "INSERT INTO labels VALUES (gen_random_uuid(), :dataset, 'x', now())",
    "empty label": "INSERT INTO labels VALUES (:image, :dataset, '', now())",
    "no change": "INSERT INTO label_changes VALUES (gen_random_uuid(), :dataset, :image, NULL, "
    "'local', 'x', 'x', now())",
    "no change from nothing": "INSERT INTO label_changes VALUES (gen_random_uuid(), :dataset, "
    ":image, NULL, 'local', NULL, NULL, now())",
    "split": "INSERT INTO image_splits VALUES (:image, :dataset, 'holdout')",
    "split of another dataset": "INSERT INTO image_splits VALUES (:image, :other, 'test')",
    "state": "UPDATE jobs SET state = 'dancing'",
    "running without lease": "UPDATE jobs SET state = 'running', finished_at = NULL",
    "failed without reason": "UPDATE jobs SET state = 'failed'",
    "finished without time": "UPDATE jobs SET finished_at = NULL",
    "unfinished without data": "UPDATE jobs SET state = 'queued', finished_at = NULL",
    "too many attempts": "UPDATE jobs SET attempt = 2",
    "stage": "UPDATE jobs SET stage = 'nap'",
    "another project's job": "UPDATE models SET project_id = :other",
    "kind": "UPDATE models SET kind = 'oracle'",
    "its own parent": "UPDATE models SET parent_id = id",
    "alias name": "INSERT INTO aliases VALUES (:project, 'Über', :model, NULL, now())",
    "alias of another project": "INSERT INTO aliases VALUES (:other, 'a', :model, NULL, now())",
    "negative size": "UPDATE datasets SET image_count = -1",
    "answer that was no success": "INSERT INTO kept_answers VALUES (:project, 'k', "
    "repeat('a', 64), 422, '{}', '', now())",
    "answer without a key": "INSERT INTO kept_answers VALUES (:project, '', "
    "repeat('a', 64), 201, '{}', '', now())",
    "key without scope": "INSERT INTO api_keys (id, project_id, name, digest, scopes) "
    "VALUES (:image, :project, 'k', repeat('a', 64), '{}')",
    "unknown scope": "INSERT INTO api_keys (id, project_id, name, digest, scopes) "
    "VALUES (:image, :project, 'k', repeat('a', 64), '{root}')",
}


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("statement", WRONG.values(), ids=WRONG)
def test_wrong_states_are_refused(engine: Engine, statement: str) -> None:
    with engine.connect() as connection, pytest.raises(IntegrityError):
        connection.execute(text(statement), IDS)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("image_format", FORMATS)
def test_every_format_that_is_read_can_be_recorded(engine: Engine, image_format: str) -> None:
    with engine.connect() as connection:
        statement = text("UPDATE images SET format = :format")
        assert connection.execute(statement, {"format": image_format}).rowcount == 1


@pytest.mark.usefixtures("rows")
def test_a_used_model_is_not_deleted_under_its_alias(engine: Engine) -> None:
    with engine.connect() as connection:
        insert = "INSERT INTO aliases VALUES (:project, 'a', :model, NULL, now())"
        connection.execute(text(insert), IDS)
        with pytest.raises(IntegrityError):
            connection.execute(text("DELETE FROM models"))


def test_images_that_were_there_before_are_counted(url: str) -> None:
    add = (
        "INSERT INTO images (id, dataset_id, sha256, width, height, format, greyscale, byte_count) "
        "SELECT gen_random_uuid(), :dataset, encode(sha256(n::text::bytea), 'hex'), 1, 1, 'PNG', "
        "false, 10 FROM generate_series(1, 7) n"
    )
    engine = create_engine(url)
    downgrade(url)
    upgrade(url, "0004")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO projects (id, name) VALUES (:project, 'p')"), IDS)
        dataset = (
            "INSERT INTO datasets (id, project_id, name, test_fraction, validation_fraction) "
            "VALUES (:dataset, :project, 'd', 0, 0), (:other, :project, 'e', 0, 0)"
        )
        connection.execute(text(dataset), IDS)
        connection.execute(text(add), IDS)
    upgrade(url)
    with engine.connect() as connection:
        counts = "SELECT name, image_count, byte_count FROM datasets ORDER BY name"
        assert list(connection.execute(text(counts))) == [("d", 7, 70), ("e", 0, 0)]
    engine.dispose()
    downgrade(url)
    upgrade(url)


def test_a_migration_that_must_wait_lets_others_pass(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump holds every table; whoever waits behind it would hold up all requests."""
    monkeypatch.setattr(migrating, "LOCK_SECONDS", 0.2)
    monkeypatch.setattr(migrating, "PAUSE_SECONDS", 0.3)
    downgrade(url, "0020")
    engine = create_engine(url)
    asked = 0
    with ThreadPoolExecutor(1) as pool, engine.connect() as dump:
        dump.execute(text("LOCK TABLE jobs IN ACCESS SHARE MODE"))
        migration = pool.submit(upgrade, url)
        for _ in range(20):
            with engine.begin() as connection:
                connection.execute(text("SET LOCAL statement_timeout = '5s'"))
                connection.execute(text("UPDATE jobs SET priority = priority"))
                asked += 1
        assert not migration.done()
        dump.rollback()
        migration.result(timeout=30)
    assert asked == 20
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(request_id) FROM jobs")) == 0
    engine.dispose()
