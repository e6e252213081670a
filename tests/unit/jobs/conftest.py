from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.jobs_database import JobsDatabase, jobs_database


@pytest.fixture(scope="session")
def migrated(postgres_url: str) -> Iterator[JobsDatabase]:
    with jobs_database(postgres_url) as database:
        yield database


@pytest.fixture
def database(migrated: JobsDatabase) -> JobsDatabase:
    """Shared between the tests, so each one looks at its own jobs only; no hints sent so far."""
    migrated.queue.sent.clear()
    migrated.queue.away = False
    return migrated
