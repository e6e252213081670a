"""What the settings of the object store accept."""

from __future__ import annotations

import pytest

from core.config import Settings, load_settings
from core.errors import ConfigurationInvalid


def test_buckets_are_listed_with_commas() -> None:
    settings = Settings(import_buckets=" camera-3,line.4 ,,", _env_file=None)
    assert settings.allowed_buckets == {"camera-3", "line.4"}
    assert Settings(_env_file=None).allowed_buckets == frozenset()


@pytest.mark.parametrize("address", ["https://objects.example.com/", "http://[::1]:9000"])
def test_an_address_for_clients(address: str) -> None:
    assert Settings(direct_url=address, _env_file=None).direct_url == address.rstrip("/")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("direct_url", "objects.example.com"),
        ("direct_url", "https://objects.example.com/path"),
        ("direct_url", "ftp://objects.example.com"),
        ("direct_url", "https://user:password@objects.example.com"),
        ("import_buckets", "camera-3,Camera"),
        ("import_buckets", "../blobs"),
        ("import_buckets", "ab"),
        ("direct_part_bytes", 5 * 2**20 - 1),
        ("direct_hours", 169),
    ],
)
def test_a_wrong_value_is_refused_at_the_start(name: str, value: object) -> None:
    with pytest.raises(ConfigurationInvalid, match=f"FEWLABELS_{name.upper()}"):
        load_settings(**{name: value})
