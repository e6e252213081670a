"""`fewlabels migrate`, `api`, `worker` and `beat`, each alone, as containers run them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from core.config import Settings, child_environment, required
from core.embedded.folder import DataFolder
from core.embedded.service import service_programs
from core.embedded.valkey import free_port
from tests.jobs_database import fresh_database
from worker.alive import SWEPT

UP_SECONDS = 60.0
STOP_SECONDS = 30.0


@pytest.fixture
def settings(postgres_url: str, broker_url: str, tmp_path: Path) -> Iterator[Settings]:
    """Servers by URL, as in production: a database and a broker's number of our own."""
    with fresh_database(postgres_url) as url:
        database = make_url(url).set(drivername="postgresql")
        yield Settings(
            database_url=SecretStr(database.render_as_string(hide_password=False)),
            broker_url=SecretStr(broker_url.removesuffix("/0") + "/7"),
            data_dir=tmp_path / "data",
            port=free_port(),
            sweep_seconds=1,
            _env_file=None,
        )


@contextmanager
def running(name: str, settings: Settings) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "core.cli", name],
        env=child_environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], path: Path) -> None:
    deadline = time.monotonic() + UP_SECONDS
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def stopped_by_sigterm(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=STOP_SECONDS)
    return process.returncode


def test_migrate(settings: Settings) -> None:
    with running("migrate", settings) as process:
        printed, _ = process.communicate(timeout=UP_SECONDS)
    assert (process.returncode, "up to date" in printed) == (0, True)


def test_the_api_answers_and_stops(settings: Settings) -> None:
    with running("api", settings) as process:
        deadline = time.monotonic() + UP_SECONDS
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{settings.port}/healthz", timeout=5) as answer:
                    assert answer.status == 200
                break
            except URLError:
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert stopped_by_sigterm(process) in {0, -signal.SIGTERM}


@pytest.mark.parametrize(("name", "sign"), [("worker", "worker.alive"), ("beat", SWEPT)])
def test_workers_give_signs_of_life_and_stop(name: str, sign: str, settings: Settings) -> None:
    file = settings.data_dir / "run" / sign
    with running(name, settings) as process:
        wait_for(process, file)
        file.unlink()
        wait_for(process, file)  # again and again, not only at the start
        assert stopped_by_sigterm(process) == 0


def test_beat_forgets_old_answers(settings: Settings) -> None:
    keep = """
        WITH owner AS (INSERT INTO projects VALUES (gen_random_uuid(), 'p', now()) RETURNING id)
        INSERT INTO kept_answers
        SELECT id, key, repeat('a', 64), 201, '{}', '', now() - age * interval '1 hour'
        FROM owner, (VALUES ('old', 25), ('fresh', 23)) AS answer (key, age)
    """
    with psycopg.connect(required(settings.database_url, "url"), autocommit=True) as database:
        database.execute(keep)
        with running("beat", settings) as process:
            deadline = time.monotonic() + UP_SECONDS
            while database.execute("SELECT key FROM kept_answers").fetchall() != [("fresh",)]:
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert stopped_by_sigterm(process) == 0


@pytest.mark.parametrize("name", ["api", "worker", "beat"])
def test_each_command_becomes_what_up_starts(name: str, settings: Settings, tmp_path: Path) -> None:
    folder = DataFolder(settings.data_dir)
    programs = {program.name: program for program in service_programs(settings, folder)}
    with running(name, settings) as process:
        deadline = time.monotonic() + UP_SECONDS
        wanted = programs[name].command[1:]
        while psutil.Process(process.pid).cmdline()[1:] != wanted:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert Path(psutil.Process(process.pid).cwd()) == folder.run


@pytest.mark.parametrize("name", ["api", "worker", "beat"])
def test_a_missing_url_is_one_sentence(name: str, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FEWLABELS_")}
    result = subprocess.run(
        [sys.executable, "-m", "core.cli", name],
        cwd=tmp_path,  # away from anybody's .env
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert "FEWLABELS_DATABASE_URL is not set" in result.stderr
