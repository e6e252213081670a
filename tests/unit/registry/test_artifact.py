"""Artefacts: content-addressed, and not used when a bit is wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from core.errors import ArtifactCorrupt, BlobNotFound
from core.registry.artifact import (
    WEIGHTS,
    ModelSource,
    file_key,
    manifest_bytes,
    sha256_of,
    stored_files,
)
from core.registry.service import as_id
from core.storage.folder import FolderStore
from tests.tiny_models import publish_tiny_model, tiny_source


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    store = FolderStore(tmp_path / "blobs")
    store.prepare()
    return store


def test_same_model_same_bytes(store: FolderStore) -> None:
    first, digest = publish_tiny_model(store, seed=1)
    again, digest_again = publish_tiny_model(store, seed=1)
    other, _ = publish_tiny_model(store, seed=2)
    assert (first, digest) == (again, digest_again)
    assert first["files"] != other["files"]
    assert hashlib.sha256(manifest_bytes(first)).hexdigest() == digest
    assert store.get(file_key(digest)) == manifest_bytes(first)


def test_fetched_once(store: FolderStore, tmp_path: Path) -> None:
    source = tiny_source(store, tmp_path / "cache")
    path = source.fetch(WEIGHTS)
    stated = stored_files(source.manifest)[WEIGHTS]
    assert (sha256_of(path), path.stat().st_size) == (stated.sha256, stated.byte_count)
    store.delete(file_key(stated.sha256))
    assert source.fetch(WEIGHTS) == path
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [stated.sha256]


def test_broken_copy_is_fetched_again(store: FolderStore, tmp_path: Path) -> None:
    source = tiny_source(store, tmp_path / "cache")
    path = source.fetch(WEIGHTS)
    whole = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(whole[:100])
    assert source.fetch(WEIGHTS).read_bytes() == whole


@pytest.mark.parametrize("damage", ["bit", "cut", "gone"])
def test_broken_blob_is_not_used(store: FolderStore, tmp_path: Path, damage: str) -> None:
    source = tiny_source(store, tmp_path / "cache")
    sha256 = stored_files(source.manifest)[WEIGHTS].sha256
    (blob,) = (tmp_path / "blobs").rglob(sha256)
    data = bytearray(blob.read_bytes())
    blob.unlink()
    if damage == "bit":
        data[-1] ^= 1
    if damage != "gone":
        blob.write_bytes(data[:50] if damage == "cut" else data)
    with pytest.raises(BlobNotFound if damage == "gone" else ArtifactCorrupt, match=sha256):
        source.fetch(WEIGHTS)
    assert list((tmp_path / "cache").iterdir()) == []


def test_source_is_only_its_facts(store: FolderStore, tmp_path: Path) -> None:
    source = tiny_source(store, tmp_path)
    assert source == ModelSource(source.model_id, source.manifest, store, tmp_path)


@pytest.mark.parametrize(
    ("reference", "is_id"),
    [
        ("3f2c8a52-6f0e-4a3e-9d8e-1f6f5b0c7d11", True),
        ("3F2C8A526F0E4A3E9D8E1F6F5B0C7D11", True),
        ("3f2c8a52-6f0e4a3e9d8e-1f6f5b0c7d11", True),  # Python reads it, wherever the hyphens are
        ("production", False),
        ("3f2c8a52", False),
        ("", False),
    ],
)
def test_what_counts_as_an_id(reference: str, is_id: bool) -> None:
    assert (as_id(reference) is not None) == is_id
