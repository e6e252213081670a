"""Real servers for the tests, each started once a session and only when a test asks for it."""

from __future__ import annotations

import gc
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from core.config import Settings
from core.embedded.servers import start_servers

# Half the time of collecting the tests went into looking for garbage among what stays to the end.
gc.disable()

RCLONE = Path(sys.executable).parent / "rclone"
START_SECONDS = 20.0


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"the server on port {port} did not start (exit code {process.poll()})")


@dataclass
class S3Server:
    """An S3 server without buckets over a folder; what it holds outlives it."""

    folder: Path
    access: str = "tester"
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return self.host_at(self.port)

    def host_at(self, port: int) -> str:
        """`s3://ACCESS:SECRET@host:port`, reached through another port."""
        return f"s3://{self.access}:{self.secret}@127.0.0.1:{port}"

    def start(self) -> None:
        address = ["--addr", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(
            [RCLONE, "serve", "s3", *address, "--config", "", self.folder],
            env={**os.environ, "RCLONE_AUTH_KEY": f'"{self.access},{self.secret}"'},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for_port(self.port, self.process)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)


@pytest.fixture(scope="session")
def s3_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`s3://ACCESS:SECRET@host:port` of a running S3 server without buckets."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        server.start()
        yield server.host
    finally:
        server.kill()


@pytest.fixture
def s3_server(tmp_path: Path) -> Iterator[S3Server]:
    """A running S3 server that the test may kill."""
    server = S3Server(tmp_path / "s3")
    server.folder.mkdir()
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of embedded servers that run for the whole session."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("servers"), _env_file=None)
    with start_servers(settings) as running:
        yield running


@pytest.fixture(scope="session")
def postgres_url(embedded: Settings) -> str:
    """SQLAlchemy URL of an empty database with pgvector at hand; migrate it yourself."""
    return embedded.sqlalchemy_url


@pytest.fixture(scope="session")
def broker_url(embedded: Settings) -> str:
    """URL of an empty Valkey, for Celery and redis-py."""
    assert embedded.broker_url is not None
    return embedded.broker_url.get_secret_value()
