"""Tiny models for engines."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from core.inference.model import LoadedModel
from core.inference.runtimes import Placement
from core.registry.artifact import ModelSource
from core.storage.folder import FolderStore
from tests.tiny_models import tiny_source


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    store = FolderStore(tmp_path / "blobs")
    store.prepare()
    return store


@pytest.fixture
def source(store: FolderStore, tmp_path: Path) -> ModelSource:
    return tiny_source(store, tmp_path / "cache")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """Ids of the models as they are loaded."""
    seen: list[UUID] = []
    original = LoadedModel.__init__

    def noting(self: LoadedModel, source: ModelSource, placement: Placement) -> None:
        seen.append(source.model_id)
        original(self, source, placement)

    monkeypatch.setattr(LoadedModel, "__init__", noting)
    return seen
