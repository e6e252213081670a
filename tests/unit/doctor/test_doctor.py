"""The doctor finds what is broken, says what to do, and tells no secrets."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from core.cli import app
from core.config import Settings
from core.db.migrating import downgrade
from core.doctor import command, machine, servers
from core.doctor.finding import Finding
from tests.jobs_database import fresh_database


@pytest.fixture(scope="module")
def database_url(postgres_url: str) -> Iterator[str]:
    with fresh_database(postgres_url) as url:
        yield url


def settings(tmp_path: Path, **given: Any) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path, device="cpu", **given)


def plain(url: str) -> str:
    return url.replace("+psycopg", "")


def by_name(found: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in found}


def test_all_is_well_over_real_servers(
    database_url: str, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {
        "FEWLABELS_DATABASE_URL": plain(database_url),
        "FEWLABELS_BROKER_URL": broker_url,
        "FEWLABELS_DEVICE": "cpu",
    }
    options = ["doctor", "--data-dir", str(tmp_path), "--json"]
    result = CliRunner().invoke(app, options, env=environment)
    found = {entry["name"]: entry for entry in json.loads(result.stdout)}
    broken = {name for name, entry in found.items() if entry["level"] == "failure"}
    assert broken <= {"disk", "memory"}  # those of the machine that runs the test
    assert result.exit_code == (1 if broken else 0)
    assert {"database", "pgvector", "migrations", "clock", "broker", "blobs"} <= set(found)
    assert "Valkey" in found["broker"]["said"]
    assert found["blobs"]["said"] == "folder: written, read and deleted"
    assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


def test_servers_that_are_away_are_told_with_what_to_do_and_without_passwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    environment = {
        "FEWLABELS_DATABASE_URL": "postgresql://me:topsecret@127.0.0.1:1/x",
        "FEWLABELS_BROKER_URL": "redis://:topsecret@127.0.0.1:1/0",
        "FEWLABELS_BLOB_URL": (tmp_path / "file" / "blobs").as_uri(),
        "FEWLABELS_DEVICE": "cpu",
    }
    options = ["doctor", "--data-dir", str(tmp_path)]
    result = CliRunner().invoke(app, options, env=environment)
    assert result.exit_code == 1
    assert "topsecret" not in result.output
    for name in ("database", "broker", "blobs"):
        assert f"failure  {name}" in result.output
    assert "start Postgres, or mend FEWLABELS_DATABASE_URL" in result.output
    assert "start Redis or Valkey" in result.output


def test_without_urls_nothing_is_broken(tmp_path: Path) -> None:
    none = settings(tmp_path)
    assert by_name(servers.check_database(none))["database"].level == "skipped"
    assert by_name(servers.check_broker(none))["broker"].level == "skipped"
    nowhere = settings(tmp_path / "none")
    assert by_name(servers.check_blobs(nowhere))["blobs"].level == "skipped"
    assert not (tmp_path / "none").exists()


def test_a_database_that_is_not_migrated_is_found(postgres_url: str, tmp_path: Path) -> None:
    with fresh_database(postgres_url) as url:
        downgrade(url, "-1")
        given = settings(tmp_path, database_url=SecretStr(plain(url)))
        finding = by_name(servers.check_database(given))["migrations"]
    assert finding.level == "failure"
    assert "fewlabels migrate" in finding.remedy


@pytest.mark.parametrize(("apart", "level"), [(0, "ok"), (3, "warning"), (60, "failure")])
def test_clocks_that_differ(
    database_url: str, monkeypatch: pytest.MonkeyPatch, apart: float, level: str
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - apart)
    engine = create_engine(database_url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
        assert servers._clock(connection).level == level
    engine.dispose()


@pytest.mark.parametrize(("free", "level"), [(0.5, "failure"), (5, "warning"), (50, "ok")])
def test_room_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, level: str
) -> None:
    usage = SimpleNamespace(free=free * machine.GIB)
    monkeypatch.setattr(psutil, "disk_usage", lambda path: usage)
    [finding] = machine.check_disk(settings(tmp_path / "not" / "there"))
    assert (finding.level, bool(finding.remedy)) == (level, level != "ok")


def test_a_gpu_that_is_wished_for_and_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wished = settings(tmp_path).model_copy(update={"device": "cuda"})
    context = SimpleNamespace(resolve_device=lambda given: "cpu")
    monkeypatch.setattr(importlib, "import_module", lambda name: context)
    [finding] = machine.check_device(wished)
    assert finding.level == "failure"
    assert "FEWLABELS_DEVICE=auto" in finding.remedy


def test_wrong_settings_are_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWLABELS_PORT", "70000")
    [finding] = command.examine(None)
    assert (finding.name, finding.level) == ("settings", "failure")
    assert "FEWLABELS_PORT" in finding.said


def test_a_misspelt_setting_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWLABELS_LEASE_SECOND", "5")
    monkeypatch.setenv("FEWLABELS_API_KEY", "of those who call")
    (tmp_path / ".env").write_text("# FEWLABELS_OLD=1\nFEWLABELS_SWEEP_SECONDS=5\nFEWLABELS_X=1\n")
    found = list(machine.check_names(settings(tmp_path)))
    assert [(one.level, one.said.split()[0]) for one in found] == [
        ("warning", "FEWLABELS_LEASE_SECOND"),
        ("warning", "FEWLABELS_X"),
    ]
    assert found[0].remedy == "is FEWLABELS_LEASE_SECONDS meant?"
