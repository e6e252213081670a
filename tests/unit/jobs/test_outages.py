"""A database that is away for a moment ends nothing; one that stays away is told."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError

from core.db.session import make_engine
from core.jobs import outages
from core.jobs.outages import DATABASE_AWAY, outlast
from tests.jobs_database import JobsDatabase


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "PAUSE_SECONDS", 0.01)


class Work:
    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        return self.calls


def away() -> OperationalError:
    return OperationalError("UPDATE", {}, Exception("server closed the connection"))


def test_goes_on_until_it_answers() -> None:
    assert outlast(Work(away(), away()), seconds=10) == 3


def test_says_when_it_stays_away() -> None:
    work = Work(*[away() for _ in range(1000)])
    with pytest.raises(OperationalError):
        outlast(work, seconds=0.1)
    assert work.calls > 2


def test_gives_up_when_told() -> None:
    work = Work(away(), away())
    with pytest.raises(OperationalError):
        outlast(work, seconds=10, give_up=lambda: True)
    assert work.calls == 1


def test_an_error_of_ours_is_not_repeated() -> None:
    work = Work(ProgrammingError("SELEC", {}, Exception("syntax")))
    with pytest.raises(ProgrammingError):
        outlast(work, seconds=10)
    assert work.calls == 1


def test_nobody_there_counts_as_away() -> None:
    engine = make_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(DATABASE_AWAY):
        engine.connect()
    engine.dispose()


@pytest.mark.parametrize("read_only", [False, True])
def test_a_server_that_ends_connections_counts_as_away(
    database: JobsDatabase, read_only: bool
) -> None:
    """A restart ends them; after a failover they lead to a server that cannot be written to."""
    engine: Any = database.sessions.kw["bind"]
    with engine.connect() as connection, engine.connect() as admin:
        if read_only:
            connection.execute(text("SET TRANSACTION READ ONLY"))
        else:
            pid = connection.scalar(text("SELECT pg_backend_pid()"))
            admin.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        with pytest.raises(DATABASE_AWAY):
            connection.execute(text("UPDATE jobs SET attempt = attempt"))
