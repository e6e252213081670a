"""Embedded Postgres and Valkey, and `fewlabels up`: they keep their data whatever happens."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis
import sqlalchemy as sa
from kombu.connection import Connection

from core.config import Settings
from core.embedded.folder import claimed_folder
from core.embedded.postgres import start_postgres
from core.embedded.servers import start_servers
from core.embedded.supervisor import Supervisor
from core.errors import EmbeddedServerFailed

CRASHING = """
import sys, time
from core.config import Settings
from core.embedded.servers import start_servers
with start_servers(Settings(data_dir=sys.argv[1], _env_file=None)) as settings:
    print(settings.sqlalchemy_url, flush=True)
    time.sleep(60)
"""


def run_sql(url: str, *statements: str) -> list[tuple[object, ...]]:
    engine = sa.create_engine(url)
    try:
        with engine.begin() as connection:
            for statement in statements:
                result = connection.execute(sa.text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        engine.dispose()


def alive(process: psutil.Process) -> bool:
    # One that has ended stays a zombie where nobody collects it.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def processes_of(folder: Path) -> list[psutil.Process]:
    """Everything that was started for a data folder; some programs rewrite their arguments."""
    found = []
    for process in psutil.process_iter():
        try:
            places = [process.cwd(), *process.cmdline()]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if any(str(folder) in place for place in places) and process.pid != os.getpid():
            found.append(process)
    return list(filter(alive, found))


def settings_in(folder: Path) -> Settings:
    return Settings(data_dir=folder, _env_file=None)


def test_one_url_serves_celery_and_redis(broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as client:
        assert client.ping()
    connection: Any = Connection
    with connection(broker_url) as opened, opened.SimpleQueue("probe") as queue:
        queue.put({"job": "1"})
        message = queue.get(timeout=5)
        assert message.payload == {"job": "1"}
        message.ack()


def test_the_broker_wants_its_password(broker_url: str, embedded: Settings) -> None:
    stranger = re.sub(r":[^:@]+@", "", broker_url)
    with (
        redis.Redis.from_url(stranger) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()
    config = embedded.data_dir / "run" / "valkey.conf"
    assert config.stat().st_mode & 0o077 == 0


def test_postgres_has_pgvector_and_sorts_unicode(postgres_url: str) -> None:
    rows = run_sql(
        postgres_url,
        "CREATE EXTENSION IF NOT EXISTS vector",
        "SELECT '[1,2]'::vector <-> '[1,5]', upper('é'), current_setting('server_encoding')",
    )
    assert rows == [(3.0, "É", "UTF8")]


def test_postgres_listens_on_a_private_socket_only(postgres_url: str, embedded: Settings) -> None:
    assert run_sql(postgres_url, "SHOW listen_addresses") == [("",)]
    assert (embedded.data_dir / "postgres").stat().st_mode & 0o777 == 0o700


def test_no_secret_is_visible_in_arguments(broker_url: str, embedded: Settings) -> None:
    password = broker_url.split(":")[2].split("@")[0]
    arguments = [part for process in processes_of(embedded.data_dir) for part in process.cmdline()]
    assert {"postgres", "valkey-server"} <= {
        process.name() for process in processes_of(embedded.data_dir)
    }
    assert not any(password in part for part in arguments)


def test_urls_that_are_set_start_nothing(tmp_path: Path, embedded: Settings) -> None:
    with start_servers(embedded.model_copy(update={"data_dir": tmp_path / "data"})) as settings:
        assert settings.database_url == embedded.database_url
        assert not (tmp_path / "data" / "postgres").exists()
        assert processes_of(tmp_path) == []


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a table; its name has characters that URLs and lists trip over."""
    folder = tmp_path_factory.mktemp("data") / ("a team's, long: 100% folder " + "x" * 60)
    with start_servers(settings_in(folder)) as settings:
        run_sql(settings.sqlalchemy_url, "CREATE TABLE kept (n int)")
    assert processes_of(folder) == []
    return folder


def test_data_is_there_after_a_restart(data: Path) -> None:
    with start_servers(settings_in(data)) as settings:
        run_sql(settings.sqlalchemy_url, "INSERT INTO kept VALUES (1)")
    with start_servers(settings_in(data)) as settings:
        assert (1,) in run_sql(settings.sqlalchemy_url, "SELECT n FROM kept")


def test_a_deep_folder_for_temporary_files_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with start_servers(settings_in(deep / "data")) as settings:
        assert run_sql(settings.sqlalchemy_url, "SELECT 1") == [(1,)]


def test_the_environment_of_libpq_does_not_mislead(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGHOST", "nowhere")
    with start_servers(settings_in(data)) as settings:
        assert run_sql(settings.sqlalchemy_url, "SELECT 1") == [(1,)]


def crash(data: Path, statement: str) -> list[psutil.Process]:
    """Run servers in another process, execute, kill -9 it; the servers that it leaves behind."""
    owner = subprocess.Popen([sys.executable, "-c", CRASHING, data], stdout=subprocess.PIPE)
    try:
        assert owner.stdout is not None
        run_sql(owner.stdout.readline().decode().strip(), statement)
    finally:
        owner.kill()
        owner.communicate()
    return processes_of(data)


def test_a_killed_instance_leaves_servers_that_the_next_start_ends(data: Path) -> None:
    left = crash(data, "INSERT INTO kept VALUES (2)")
    assert any("postgres" in process.name() for process in left)
    with start_servers(settings_in(data)) as settings:
        assert not any(map(alive, left))
        assert (2,) in run_sql(settings.sqlalchemy_url, "SELECT n FROM kept")


def test_a_killed_postgres_recovers(data: Path) -> None:
    left = crash(data, "INSERT INTO kept VALUES (3)")
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=5)
    with start_servers(settings_in(data)) as settings:
        assert (3,) in run_sql(settings.sqlalchemy_url, "SELECT n FROM kept")


def test_a_server_without_a_record_is_found_by_its_own_lock_file(data: Path) -> None:
    left = crash(data, "INSERT INTO kept VALUES (4)")
    (data / "run" / "postgres.json").unlink()
    with start_servers(settings_in(data)) as settings:
        assert not any(map(alive, left))
        assert (4,) in run_sql(settings.sqlalchemy_url, "SELECT n FROM kept")


def test_a_lock_file_with_a_reused_pid_does_not_stop_the_start(data: Path) -> None:
    lock = data / "postgres" / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n{data / 'postgres'}\n1700000000\n5432\n\n\n")
    with start_servers(settings_in(data)) as settings:
        assert run_sql(settings.sqlalchemy_url, "SELECT 1") == [(1,)]


def test_an_interrupted_first_start_is_made_good(tmp_path: Path) -> None:
    (tmp_path / "postgres.new").mkdir()
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18\n")
    with (
        claimed_folder(tmp_path) as folder,
        Supervisor(folder) as supervisor,
        psycopg.connect(start_postgres(supervisor)) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_data_of_another_version_is_refused(data: Path) -> None:
    version = data / "postgres" / "PG_VERSION"
    before = version.read_text()
    version.write_text("16\n")
    try:
        with (
            pytest.raises(EmbeddedServerFailed, match="Postgres 16"),
            start_servers(settings_in(data)),
        ):
            pytest.fail("started on data of another version")
    finally:
        version.write_text(before)


def test_a_second_instance_is_refused(embedded: Settings) -> None:
    with (
        pytest.raises(EmbeddedServerFailed, match="another instance"),
        start_servers(settings_in(embedded.data_dir)),
    ):
        pytest.fail("two instances on one folder")


def up(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "core.cli", "up", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_up(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What `up` prints until it is up, and its URL."""
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if found := re.search(r"is up at (http\S+)", line):
            return printed, found.group(1)
    errors = process.stderr.read() if process.stderr else ""
    return pytest.fail(f"up did not come up: {printed}{errors}")


def test_up_survives_a_kill_and_stops_clean(data: Path) -> None:
    first = up("--data-dir", data, "--port", "0")
    _, url = wait_up(first)
    port = url.rsplit(":", 1)[1]
    first.kill()
    first.communicate()
    left = processes_of(data)
    assert left != []
    # The API of the killed instance still holds the port: leftovers are ended before the check.
    second = up("--data-dir", data, "--port", port)
    try:
        printed, again = wait_up(second)
        assert again == url
        assert "postgres" in printed.split("starting")[0]
        assert f"{url}/docs" in (second.stdout.readline() if second.stdout else "")
        assert not any(map(alive, left))
        second.send_signal(signal.SIGTERM)
        _, errors = second.communicate(timeout=30)
    finally:
        second.kill()
    assert (second.returncode, errors) == (0, "")
    assert processes_of(data) == []
    with socket.socket() as free:
        free.bind(("127.0.0.1", int(port)))


def test_a_stop_during_the_start_is_clean_too(tmp_path: Path) -> None:
    process = up("--data-dir", tmp_path, "--port", "0")
    assert process.stdout is not None
    for line in process.stdout:
        if "starting Postgres" in line:
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert processes_of(tmp_path) == []
