"""Lines of a job's process reach the database: fenced, capped, without secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from core.config import Settings
from core.errors import LeaseLost
from core.jobs import leases
from core.jobs.leases import Claim
from core.jobs.logs import read_lines
from tests.jobs_database import JobsDatabase, jobs_database
from worker import logs
from worker.logs import LogShipper
from worker.redaction import Redaction

PASSWORD, ACCESS, KEY = "pa%2Fss-word", "AKIAEXAMPLE", "s3cr3t/key"
SETTINGS = Settings(
    _env_file=None,
    database_url=SecretStr(f"postgresql://me:{PASSWORD}@db.internal/x"),
    broker_url=SecretStr("redis://:valkeypass@broker:6379/0"),
    blob_url=SecretStr(f"s3://{ACCESS}:s3cr3t%2Fkey@store:9000/b"),
)


@pytest.fixture(scope="module")
def database(postgres_url: str) -> Iterator[JobsDatabase]:
    with jobs_database(postgres_url) as made:
        yield made


def claim(database: JobsDatabase) -> Claim:
    [job_id] = database.chain()
    with database.sessions.begin() as session:
        held = leases.claim(session, job_id, worker="w", lease_seconds=30)
    assert held is not None
    return held


def shipper(database: JobsDatabase, held: Claim, path: Path, **changes: Any) -> LogShipper:
    settings = SETTINGS.model_copy(update=changes)
    return LogShipper(held, path, database.sessions, settings)


def texts(database: JobsDatabase, held: Claim, after: int | None = 0) -> list[str]:
    with database.sessions.begin() as session:
        found = read_lines(session, held.job_id, after=after, attempt=None, limit=10_000)
        return [line.text for line in found]


def test_lines_come_once_and_a_half_one_waits_for_its_end(
    database: JobsDatabase, tmp_path: Path
) -> None:
    held, path = claim(database), tmp_path / "a.log"
    path.write_text("of an attempt before\n")
    ship = shipper(database, held, path)
    with path.open("a") as file:
        file.write("one\n\x1b[31mtwo\x1b[0m \x00\n\nhal")
        file.flush()
        assert ship._bring(last=False)
        assert not ship._bring(last=False)
        assert texts(database, held) == ["one", "two"]
        file.write("f\nlast")
    ship.bring_rest()
    assert texts(database, held) == ["one", "two", "half", "last"]


def test_a_structured_line_keeps_its_parts(database: JobsDatabase, tmp_path: Path) -> None:
    held, path = claim(database), tmp_path / "b.log"
    said = {"event": "epoch", "level": "info", "timestamp": "2026-01-02T03:04:05+00:00"}
    odd: list[Any] = [
        [1],
        '{"half',
        '{"event": 3}',
        {"event": "x", "timestamp": "now", "n": float("nan")},
    ]
    rows: list[Any] = [{**said, "loss": 0.5, "of": [1, 2], "job_id": "j"}, *odd]
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    ship = shipper(database, held, path)
    ship._position = 0
    ship.bring_rest()
    with database.sessions.begin() as session:
        found = read_lines(session, held.job_id, after=0, attempt=1, limit=10)
    first = found[0]
    assert (first.text, first.level) == ("epoch", "info")
    assert first.at.isoformat() == said["timestamp"]
    assert first.fields == {"loss": 0.5, "of": "[1, 2]"}
    assert [line.text for line in found[1:]] == ["[1]", '{"half', '{"event": 3}', "x"]
    assert found[-1].fields == {"n": "NaN"}


def test_the_newest_lines_are_kept(
    database: JobsDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, path = claim(database), tmp_path / "c.log"
    path.touch()
    ship = shipper(database, held, path, max_job_log_lines=5)
    path.write_text("".join(f"{n}\n" for n in range(100)))
    ship.bring_rest()
    assert texts(database, held) == ["95", "96", "97", "98", "99"]
    monkeypatch.setattr(logs, "BEHIND_BYTES", 100)
    with path.open("a") as file:
        file.write("".join(f"{'x' * 9}{n}\n" for n in range(10, 40)))
    ship.bring_rest()
    kept = texts(database, held)
    assert kept[-1] == "x" * 9 + "39"
    path.write_text(path.read_text() + "y" * 10_000)
    monkeypatch.setattr(logs, "BEHIND_BYTES", 10**6)
    ship.bring_rest()
    assert texts(database, held)[-1] == "y" * logs.LONGEST + "…"


def test_who_lost_the_lease_writes_nothing_more(database: JobsDatabase, tmp_path: Path) -> None:
    held, path = claim(database), tmp_path / "d.log"
    path.touch()
    ship = shipper(database, held, path)
    path.write_text("late\n")
    database.set(held.job_id, fencing_token=held.token + 1)
    with pytest.raises(LeaseLost):
        ship._bring(last=False)
    ship.bring_rest()  # says so in the worker's log
    assert texts(database, held) == []


def test_the_last_lines_come_after_the_job_has_ended(
    database: JobsDatabase, tmp_path: Path
) -> None:
    held, path = claim(database), tmp_path / "e.log"
    path.touch()
    ship = shipper(database, held, path)
    with database.sessions.begin() as session:
        leases.give_back(session, held)  # any end that leaves the token as it is
    with ship:
        path.write_text("bye\n")
        ship.bring_rest()
    assert texts(database, held) == ["bye"]


def test_pages_go_on_behind_an_id_and_without_one_the_newest_come(
    database: JobsDatabase, tmp_path: Path
) -> None:
    held, path = claim(database), tmp_path / "f.log"
    path.touch()
    ship = shipper(database, held, path)
    path.write_text("".join(f"{n}\n" for n in range(10)))
    ship.bring_rest()
    seen: list[str] = []
    last = 0
    with database.sessions.begin() as session:
        while page := read_lines(session, held.job_id, after=last, attempt=None, limit=3):
            seen += [line.text for line in page]
            last = page[-1].id
        newest = read_lines(session, held.job_id, after=None, attempt=None, limit=2)
    assert seen == [str(n) for n in range(10)]
    assert [line.text for line in newest] == ["8", "9"]


@pytest.mark.parametrize(
    "said",
    [
        f"connecting to postgresql://me:{PASSWORD}@db.internal/x",
        "password pa/ss-word was wrong",
        "FATAL: valkeypass",
        f"signed by {ACCESS}",
        f"{KEY} and s3cr3t%2Fkey",
        "https://user:other-secret@example.com/x",
        "key fl_abcdefghijklmnop",
        "Authorization: Bearer abc.def-ghi_jkl",
        "password=hunter22&x=1",
        '{"token": "hunter22"}',
    ],
)
def test_secrets_are_taken_out(said: str) -> None:
    shown = Redaction(SETTINGS)(said)
    assert "***" in shown
    for secret in (PASSWORD, "pa/ss-word", "valkeypass", ACCESS, KEY, "s3cr3t%2Fkey"):
        assert secret not in shown
    for secret in ("other-secret", "abcdefghijklmnop", "abc.def", "hunter22"):
        assert secret not in shown


def test_other_words_stay() -> None:
    said = "epoch 3 of 10, loss 0.123, at https://example.com/x?y=1"
    assert Redaction(SETTINGS)(said) == said
