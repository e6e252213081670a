"""A model in eight bits answers classes with them and vectors without, wherever it is loaded."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import ArtifactCorrupt
from core.inference.engine import Engine
from core.inference.model import Answer, LoadedModel
from core.inference.runtimes import Placement
from core.learning.preprocessing import Preprocessing
from core.learning.runtimes.int8 import RUNTIME
from core.learning.runtimes.onnx import onnxruntime_run
from core.registry.artifact import INT8, ONNX, ModelSource
from core.storage.folder import FolderStore
from tests.tiny_models import tiny_source
from tests.unit.inference.engine_runs import pictures, run


@pytest.fixture
def source(store: FolderStore, tmp_path: Path) -> ModelSource:
    return tiny_source(store, tmp_path / "cache", int8=True, head_std=1.0)


async def said(engine: Engine, source: ModelSource, images: list[Any], **how: Any) -> list[Answer]:
    answered = await engine.answer(source, [partial(np.asarray, i) for i in images], **how)
    answers = [result for result in answered.results if isinstance(result, Answer)]
    assert len(answers) == len(images)
    return answers


def probabilities(answers: list[Answer]) -> np.ndarray[Any, Any]:
    return np.stack([one.probabilities_K for one in answers if one.probabilities_K is not None])


def test_classes_come_from_eight_bits_and_vectors_never(source: ModelSource) -> None:
    images = pictures(12)
    preprocessing = Preprocessing.from_dict(source.manifest["preprocessing"])
    canvases = np.stack([preprocessing.canvas(image) for image in images])
    exact_vectors, exact = onnxruntime_run(source.fetch(ONNX), threads=1)(canvases)
    rounded_vectors, rounded = onnxruntime_run(source.fetch(INT8), threads=1)(canvases)
    assert exact is not None
    assert rounded is not None
    assert np.abs(rounded - exact).max() > 1e-4
    assert np.abs(rounded_vectors - exact_vectors).max() > 1e-4

    async def work(engine: Engine) -> None:
        for again in range(2):  # with room for one, each call drives the other one out
            labels = await said(engine, source, images, labels_only=True)
            vectors = await said(engine, source, images)
            np.testing.assert_allclose(probabilities(labels), rounded, atol=1e-6)
            np.testing.assert_allclose(probabilities(vectors), exact, atol=1e-5)
            found_vectors = np.stack([answer.embedding_D for answer in vectors])
            np.testing.assert_allclose(found_vectors, exact_vectors, atol=1e-5)
            loaded = [served.model.runtime for served in engine._shelf.loaded()]
            assert loaded == ["onnxruntime"], again

    run(work, max_loaded_models=1)


def test_a_pinned_model_is_warm_for_both(source: ModelSource) -> None:
    async def work(engine: Engine) -> None:
        engine.pin(frozenset({source.model_id}))
        assert (await engine.model(source)).runtime == "onnxruntime"
        loaded = {served.model.runtime for served in engine._shelf.loaded()}
        assert loaded == {"onnxruntime", RUNTIME}
        await engine.check()

    run(work)


def test_a_setting_goes_before_it(source: ModelSource) -> None:
    assert Placement().apart(source)
    assert Placement(labels_only=True).file_of(source) == INT8
    for name in ("eager", "onnxruntime"):
        assert not Placement(runtime=name).apart(source)
        loaded = LoadedModel(source, Placement(runtime=name, labels_only=True))
        assert loaded.runtime == name
    assert not Placement(device="cuda").apart(source)


def test_a_damaged_file_is_refused(source: ModelSource, store: FolderStore) -> None:
    entry = {**source.manifest["files"][INT8], "sha256": "0" * 64}
    store.put(f"models/{entry['sha256']}", b"not it")
    files = {**source.manifest["files"], INT8: entry}
    damaged = replace(source, manifest={**source.manifest, "files": files})

    async def work(engine: Engine) -> None:
        with pytest.raises(ArtifactCorrupt, match=INT8):
            await said(engine, damaged, pictures(1), labels_only=True)
        assert len(await said(engine, damaged, pictures(1))) == 1

    run(work)


def test_other_answers_than_at_the_start_are_not_served(source: ModelSource) -> None:
    probe = source.manifest["runtime"]["probe_int8"]
    wrong = [[value + 0.03 for value in row] for row in probe["probabilities"]]
    runtime = {**source.manifest["runtime"], "probe_int8": {**probe, "probabilities": wrong}}
    other = replace(source, manifest={**source.manifest, "runtime": runtime})
    assert LoadedModel(source, Placement(labels_only=True)).runtime == RUNTIME
    assert LoadedModel(other, Placement(labels_only=True)).runtime == "onnxruntime"
