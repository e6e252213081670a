"""A key's life: made, shown once, used, expired, revoked; and who needs none."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from api.exposure import refuse_open_address
from api.main import create_app
from core import auth
from core.cli import app as commands
from core.config import Settings
from core.db.models import ApiKey
from core.db.table import Table
from core.errors import ConfigurationInvalid
from tests.integration.api.problems import assert_problem

CACHE_SECONDS = 0.4
Sessions = Callable[[], Session]
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def run(settings: Settings) -> Run:
    """`fewlabels keys …` on the database of the tests."""
    environment = {"FEWLABELS_DATABASE_URL": settings.sqlalchemy_url.replace("+psycopg", "")}

    def keys(*words: str) -> Result:
        return CliRunner(env=environment).invoke(commands, ["keys", *words])

    return keys


def row(session: Sessions, secret: str) -> ApiKey:
    with session() as opened:
        digest = hashlib.sha256(secret.encode()).hexdigest()
        return opened.scalars(select(ApiKey).where(ApiKey.digest == digest)).one()


def test_a_key_is_256_random_bits_shown_once_and_kept_as_a_hash(
    run: Run, client: TestClient, session: Sessions
) -> None:
    made = [run("create", "--name", "n", "--project", "p", "--scopes", "read") for _ in range(2)]
    assert [result.exit_code for result in made] == [0, 0]
    first, second = (result.stdout.splitlines()[-1] for result in made)
    assert first != second
    assert len(base64.urlsafe_b64decode(first.removeprefix("fl_") + "=")) * 8 == 256
    assert row(session, first).scopes == ["read"]
    listed = run("list").stdout
    assert str(row(session, first).id) in listed
    with session() as opened:
        kept = "".join(
            str(opened.execute(table.select()).all()) for table in Table.metadata.sorted_tables
        )
    for secret in (first, second):
        assert secret not in listed + kept
        assert secret.removeprefix("fl_") not in listed + kept


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scopes", "read,root"), "found root; allowed are admin, infer, read, write"),
        (("--scopes", ","), "found none"),
        (("--name", ""), "name: found 0 characters"),
        (("--project", "x" * 201), "project: found 201 characters"),
    ],
)
def test_wrong_wishes_are_refused(
    run: Run, client: TestClient, words: tuple[str, str], said: str
) -> None:
    result = run("create", *(() if "--name" in words else ("--name", "n")), *words)
    assert result.exit_code == 1
    assert said in result.stderr


def test_expiry_and_last_use(run: Run, guarded_client: TestClient, session: Sessions) -> None:
    made = run("create", "--name", "n", "--scopes", "read", "--days", "2")
    secret = made.stdout.splitlines()[-1]
    left = row(session, secret).expires_at
    assert left is not None
    assert timedelta(days=1.9) < left - datetime.now(UTC) < timedelta(days=2)
    assert row(session, secret).last_used_at is None
    headers = {"authorization": f"Bearer {secret}"}
    assert guarded_client.get("/datasets", headers=headers).status_code == 200
    used = row(session, secret).last_used_at
    assert used is not None
    assert str(used) in run("list").stdout
    # Refused for its scope, a key was used all the same; each use within a minute is one write.
    assert guarded_client.post("/datasets", headers=headers, json={}).status_code == 403
    assert row(session, secret).last_used_at == used
    with session() as opened, opened.begin():
        past = {"expires_at": datetime.now(UTC) - timedelta(seconds=1)}
        opened.execute(ApiKey.__table__.update().where(ApiKey.id == row(session, secret).id), past)  # type: ignore[attr-defined]
    assert_problem(guarded_client.get("/datasets", headers=headers), 401, "expired")


def test_revoked_is_revoked_at_once(
    run: Run, guarded_client: TestClient, session: Sessions
) -> None:
    secret = run("create", "--name", "n").stdout.splitlines()[-1]
    headers = {"authorization": f"Bearer {secret}"}
    assert guarded_client.get("/datasets", headers=headers).status_code == 200
    assert run("revoke", str(row(session, secret).id)).exit_code == 0
    assert_problem(guarded_client.get("/datasets", headers=headers), 401)
    when = row(session, secret).revoked_at
    assert run("revoke", str(row(session, secret).id)).exit_code == 0  # twice is no error
    assert row(session, secret).revoked_at == when
    assert "no API key has the id" in run("revoke", str(uuid4())).stderr


def test_the_serving_path_forgets_a_revoked_key_in_time(
    settings: Settings, session: Sessions, key: Callable[..., dict[str, str]]
) -> None:
    wishes = {"auth_mode": "keys", "key_cache_seconds": CACHE_SECONDS}
    with TestClient(create_app(settings.model_copy(update=wishes))) as calling:
        headers = key("default", "infer")
        body = {"model": "nothing", "images": ["eA=="]}

        def status() -> int:
            return calling.post("/embed", headers=headers, json=body).status_code

        assert status() == 404  # in, and remembered
        with session() as opened, opened.begin():
            secret = headers["authorization"].removeprefix("Bearer ")
            auth.revoke_key(opened, row(session, secret).id)
        time.sleep(CACHE_SECONDS)
        assert status() == 401


@pytest.mark.parametrize(
    ("address", "host", "status"),
    [
        ("127.0.0.1", "127.0.0.1:8000", 200),
        ("::1", "[::1]:8000", 200),
        ("::ffff:127.0.0.1", "localhost", 200),
        ("127.0.0.1", "box", 200),
        ("127.0.0.1", "app.localhost:8000", 200),
        ("10.1.2.3", "127.0.0.1:8000", 403),
        ("192.168.0.7", "box", 403),
        ("2001:db8::1", "[2001:db8::1]:8000", 403),
        ("127.0.0.1", "evil.example:8000", 403),
        ("127.0.0.1", "127.0.0.1.evil.example", 403),
    ],
)
def test_without_keys_only_loopback_is_answered(
    app: FastAPI, client: TestClient, address: str, host: str, status: int
) -> None:
    """However the server was started: `server` is the address a connection came in on."""

    async def came_in(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "server": (address, 8000)}, receive, send)

    answer = TestClient(came_in).get("/healthz", headers={"host": host})
    if status == 200:
        assert answer.status_code == 200, answer.text
    else:
        assert_problem(answer, 403, "without keys", "FEWLABELS_AUTH_MODE=keys")


def test_with_keys_every_address_is_answered(guarded_client: TestClient) -> None:
    answer = guarded_client.get("/healthz", headers={"host": "models.example"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["--host", "0.0.0.0"], True),
        (["--host=0.0.0.0"], True),
        (["--port", "1", "--host", "::"], True),
        (["--host", "127.0.0.1"], False),
        (["--host=localhost"], False),
        ([], False),
    ],
)
@pytest.mark.parametrize("program", ["/x/bin/uvicorn", "/x/uvicorn/__main__.py"])
def test_uvicorn_by_hand_is_refused_an_open_address(
    settings: Settings, program: str, words: list[str], refused: bool
) -> None:
    arguments = [program, "--factory", "api.main:create_app", *words]
    refuse_open_address(settings.model_copy(update={"auth_mode": "keys"}), arguments)
    refuse_open_address(settings, ["pytest", *words])
    if refused:
        with pytest.raises(ConfigurationInvalid, match="loopback address only"):
            refuse_open_address(settings, arguments)
    else:
        refuse_open_address(settings, arguments)
