"""Artefacts: a manifest and files, each under the hash of its content."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from core.errors import ArtifactCorrupt
from core.storage.store import BlobStore

FORMAT = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
ONNX = "model.onnx"
INT8 = "model-int8.onnx"
READ_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of an artefact as its manifest states it."""

    sha256: str
    byte_count: int


def file_key(sha256: str) -> str:
    """Where a file of an artefact lies in the blob store."""
    return f"models/{sha256}"


def sha256_of(path: Path) -> str:
    """The hash of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def publish_files(store: BlobStore, files: Mapping[str, Path]) -> dict[str, StoredFile]:
    """Put the files of an artefact into the store."""
    stored = {}
    for name, path in files.items():
        stored[name] = stored_file(path)
        store.put_file(file_key(stored[name].sha256), path)
    return stored


def stored_file(path: Path) -> StoredFile:
    """What a manifest will state of a file."""
    return StoredFile(sha256_of(path), path.stat().st_size)


def publish_manifest(
    store: BlobStore, facts: Mapping[str, Any], files: Mapping[str, StoredFile]
) -> tuple[dict[str, Any], str]:
    """Put the manifest into the store; returns it and its hash."""
    manifest, digest = compose_manifest(facts, files)
    store.put(file_key(digest), manifest_bytes(manifest))
    return manifest, digest


def compose_manifest(
    facts: Mapping[str, Any], files: Mapping[str, StoredFile]
) -> tuple[dict[str, Any], str]:
    """The manifest of an artefact with these files, and its hash."""
    listed = {
        name: {"sha256": stored.sha256, "bytes": stored.byte_count}
        for name, stored in files.items()
    }
    manifest = {"format": FORMAT, **facts, "files": listed}
    return manifest, hashlib.sha256(manifest_bytes(manifest)).hexdigest()


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """The one serialisation of a manifest, which its hash is taken of."""
    return json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False).encode()


def stored_files(manifest: Mapping[str, Any]) -> dict[str, StoredFile]:
    """The files that a manifest lists."""
    return {
        name: StoredFile(str(entry["sha256"]), int(entry["bytes"]))
        for name, entry in manifest["files"].items()
    }


@dataclass(frozen=True, slots=True)
class ModelSource:
    """All that is needed to load a model: its manifest and where its files are."""

    model_id: UUID
    manifest: Mapping[str, Any]
    store: BlobStore
    cache_folder: Path

    def fetch(self, name: str) -> Path:
        """A local copy of a file whose checksum holds.

        Raises:
            ArtifactCorrupt: The stored bytes are not those of the manifest.
        """
        expected = stored_files(self.manifest)[name]
        path = self.cache_folder / expected.sha256
        if path.exists() and sha256_of(path) == expected.sha256:
            return path
        self.cache_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache_folder) as folder:
            fetched = Path(folder) / "file"
            self.store.fetch(file_key(expected.sha256), fetched)
            found = sha256_of(fetched)
            if found != expected.sha256:
                raise ArtifactCorrupt(
                    f"model {self.model_id}: {name} has the sha256 {found}, "
                    f"its manifest states {expected.sha256}"
                )
            fetched.replace(path)
        return path
