"""A served model runs as its manifest chose, or by PyTorch where that does not work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import ArtifactCorrupt
from core.inference.model import LoadedModel
from core.inference.runtimes import Placement
from core.registry.artifact import ONNX, WEIGHTS, ModelSource
from core.storage.folder import FolderStore
from tests.tiny_models import SIDE, tiny_source


@pytest.fixture
def exported(store: FolderStore, tmp_path: Path) -> ModelSource:
    return tiny_source(store, tmp_path / "cache", exported=True, head_std=1.0)


def changed(source: ModelSource, **runtime: Any) -> ModelSource:
    return replace(
        source,
        manifest={**source.manifest, "runtime": {**source.manifest["runtime"], **runtime}},
    )


def test_the_choice_decides_and_a_setting_goes_before_it(exported: ModelSource) -> None:
    chosen = LoadedModel(exported, Placement())
    by_setting = LoadedModel(exported, Placement(runtime="eager"))
    assert (chosen.runtime, by_setting.runtime) == ("onnxruntime", "eager")
    assert Placement().file_of(exported) == ONNX
    assert Placement(runtime="eager").file_of(exported) == WEIGHTS
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    [one], [other] = chosen.forward([image]), by_setting.forward([image])
    np.testing.assert_allclose(one.embedding_D, other.embedding_D, atol=1e-5)
    assert one.probabilities_K is not None
    assert other.probabilities_K is not None
    np.testing.assert_allclose(one.probabilities_K, other.probabilities_K, atol=1e-5)


def test_other_answers_than_at_the_start_are_not_served(exported: ModelSource) -> None:
    probe = exported.manifest["runtime"]["probe"]
    wrong = [[value + 0.01 for value in row] for row in probe["embedding"]]
    source = changed(exported, probe={**probe, "embedding": wrong})
    assert LoadedModel(source, Placement()).runtime == "eager"


def test_a_model_without_the_file_is_run_by_pytorch(source: ModelSource) -> None:
    assert LoadedModel(source, Placement(runtime="onnxruntime")).runtime == "eager"


def test_a_damaged_file_is_refused(exported: ModelSource, store: FolderStore) -> None:
    files = {**exported.manifest["files"], ONNX: exported.manifest["files"][WEIGHTS]}
    entry = {**files[ONNX], "sha256": "0" * 64}
    path = exported.cache_folder / entry["sha256"]
    store.put(f"models/{entry['sha256']}", b"not it")
    source = replace(exported, manifest={**exported.manifest, "files": {**files, ONNX: entry}})
    with pytest.raises(ArtifactCorrupt, match="sha256"):
        LoadedModel(source, Placement())
    assert not path.exists()
