"""Open doors and secrets that everybody tries first keep the service from starting."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from core.config import Settings, load_settings
from core.errors import ConfigurationInvalid
from core.exposure import has_known_secret, is_loopback, is_remote

WEAK = [
    "postgresql://postgres:postgres@db/fewlabels",
    "postgresql://team:changeme@db/fewlabels",
    "postgresql://team:TEAM@db/fewlabels",
    "redis://:redis@cache:6379/0",
    "redis://:Password@cache:6379/0",
    "s3://minioadmin:minioadmin@minio:9000/images?secure=false",
    "s3://me:%6dinioadmin@minio:9000/images",
]
GOOD = [
    "postgresql://team:5f2b1c77a0d94be1@db/fewlabels",
    "postgresql://postgres@/fewlabels?host=/run/postgres&port=5432",
    "redis://:zq8-Kd71_0aPq@cache:6379/0",
    "redis://cache:6379/0",
    "s3://me:0b9f4a1d77ce42e0@minio:9000/images",
    "file:///var/lib/fewlabels/blobs",
    "redis://:redis@[half/0",
    "",
]


@pytest.mark.parametrize("url", WEAK)
def test_known_secrets_are_known(url: str) -> None:
    assert has_known_secret(url)
    assert is_remote(url)


@pytest.mark.parametrize("url", GOOD)
def test_others_are_not(url: str) -> None:
    assert not has_known_secret(url)


@pytest.mark.parametrize(("host", "own"), [("db", True), ("localhost", False), ("[::1]", False)])
def test_where_a_url_leads(host: str, own: bool) -> None:
    assert is_remote(f"postgresql://team:x@{host}:5432/fewlabels") == own


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
    ],
)
def test_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) == own


def field_of(url: str) -> str:
    scheme = url.partition(":")[0]
    return {"postgresql": "database_url", "redis": "broker_url"}.get(scheme, "blob_url")


@pytest.mark.parametrize("mode", ["off", "keys"])
@pytest.mark.parametrize("url", WEAK)
def test_the_service_refuses_to_start_with_them(
    url: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"FEWLABELS_{field_of(url).upper()}"
    monkeypatch.setenv(name, url)
    monkeypatch.setenv("FEWLABELS_AUTH_MODE", mode)
    with pytest.raises(ConfigurationInvalid, match=f"{name}: its password") as refused:
        load_settings()
    for word in ("minioadmin", "changeme", "postgres:postgres"):
        assert word not in str(refused.value).lower()


def test_on_this_machine_alone_they_may_do(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://postgres:postgres@127.0.0.1/fewlabels"
    monkeypatch.setenv("FEWLABELS_DATABASE_URL", url)
    assert load_settings().database_url is not None
    monkeypatch.setenv("FEWLABELS_AUTH_MODE", "keys")
    with pytest.raises(ConfigurationInvalid):
        load_settings()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "models.example"])
def test_without_keys_the_service_refuses_an_open_address(host: str) -> None:
    with pytest.raises(ConfigurationInvalid, match="FEWLABELS_AUTH_MODE=keys"):
        load_settings(host=host, auth_mode="off")
    assert load_settings(host=host, auth_mode="keys").host == host


def test_what_is_wrong_is_told_without_the_secret() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(_env_file=None, host="0.0.0.0", broker_url="redis://:hunter2hunter2@cache/0")
    assert "hunter2" not in str(refused.value)
