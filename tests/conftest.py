"""Real servers for the tests, each started once a session and only when a test asks for it."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.config import Settings
from core.embedded.servers import start_servers

RCLONE = Path(sys.executable).parent / "rclone"
START_SECONDS = 20.0


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


@pytest.fixture(scope="session")
def s3_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`s3://ACCESS:SECRET@host:port` of a running S3 server without buckets."""
    folder = tmp_path_factory.mktemp("s3")
    access, secret, port = "tester", secrets.token_hex(16), free_port()
    process = subprocess.Popen(
        [RCLONE, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--config", "", folder],
        env={**os.environ, "RCLONE_AUTH_KEY": f'"{access},{secret}"'},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port, process)
        yield f"s3://{access}:{secret}@127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


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
