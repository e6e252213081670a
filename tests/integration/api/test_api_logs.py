"""No key and no password stands in a log; `log_watch` looks through all of them at the end."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.main import create_app
from core.config import Settings
from core.storage.store import open_store
from tests.integration.api.leaks import LogWatch, passwords
from tests.integration.api.problems import picture

PASSWORD = secrets.token_hex(16)


@contextmanager
def away(settings: Settings, field: str, address: str) -> Iterator[TestClient]:
    """A service one of whose servers does not answer, or does not let it in any more."""
    broken = create_app(settings.model_copy(update={field: SecretStr(address)}))
    if field == "blob_url":  # it does not start with such a store
        refused, broken.state.store = broken.state.store, open_store(settings.store_url)
    with TestClient(broken, raise_server_exceptions=False) as calling:
        if field == "blob_url":
            broken.state.store = refused
        yield calling


def test_the_watch_finds_what_it_looks_for(tmp_path: Path) -> None:
    watch = LogWatch(tmp_path / "log", secrets={PASSWORD})
    watch.log.write_text(f"fine\nconnecting with {PASSWORD}\n")
    assert watch.leaks() == [f"log: connecting with {PASSWORD}"]


def test_the_passwords_of_all_servers_are_looked_for() -> None:
    settings = Settings(
        _env_file=None,
        database_url="postgresql://team:first7@db/x",
        broker_url="redis://:second8@cache:6379/0",
        blob_url="s3://access:third9@minio:9000/images",
    )
    assert passwords(settings) == {"first7", "second8", "third9"}


def test_keys_that_are_refused_are_not_logged(
    guarded_client: TestClient, key: Callable[..., dict[str, str]], log_watch: LogWatch
) -> None:
    before = len(log_watch.text)
    headers = key("default", "read", revoked=True)
    assert headers["authorization"].removeprefix("Bearer ") in log_watch.secrets
    assert guarded_client.get("/datasets", headers=headers).status_code == 401
    assert '"status": 401' in log_watch.text[before:]
    assert log_watch.leaks() == []


@pytest.mark.parametrize(
    ("method", "path", "field", "address", "said"),
    [
        (
            "GET",
            "/datasets",
            "database_url",
            "postgresql://team:{password}@127.0.0.1:1/none",
            "database does not answer",
        ),
        (
            "GET",
            "/images/{image_id}/content",
            "blob_url",
            "s3://tester:{password}@{s3}/images",
            "request failed",
        ),
        (
            "POST",
            "/jobs",
            "broker_url",
            "redis://:{password}@127.0.0.1:1/0",
            "job hint not sent",
        ),
    ],
)
def test_servers_that_fail_are_logged_without_their_passwords(
    client: TestClient,
    settings: Settings,
    add_dataset: Callable[..., str],
    s3_host: str,
    log_watch: LogWatch,
    method: str,
    path: str,
    field: str,
    address: str,
    said: str,
) -> None:
    dataset_id = add_dataset({f"{n}.png": picture(n) for n in range(3)})
    image_id = client.get(f"/datasets/{dataset_id}/images").json()["items"][0]["id"]
    place = s3_host.rpartition("@")[2]
    order = {"stage": "pretrain", "dataset_id": dataset_id, "batch_size": 2}
    before = len(log_watch.text)
    with away(settings, field, address.format(password=PASSWORD, s3=place)) as broken:
        sent = order if method == "POST" else None
        broken.request(method, path.format(image_id=image_id), json=sent)
    assert said in log_watch.text[before:]
    assert PASSWORD in log_watch.secrets
    assert log_watch.leaks() == []
