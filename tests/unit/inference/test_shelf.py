"""Models are loaded once, and unloaded for others, never under a request."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from core.errors import (
    ArtifactCorrupt,
    NoRoomForModel,
)
from core.inference import model as model_module
from core.inference.engine import Engine
from core.inference.model import Answer
from core.registry.artifact import WEIGHTS, ModelSource, stored_files
from core.storage.folder import FolderStore
from tests.tiny_models import tiny_source
from tests.unit.inference.engine_runs import Held, ask, pictures, run


def test_many_wait_for_one_load(source: ModelSource, loads: list[UUID]) -> None:
    async def work(engine: Engine) -> None:
        answers = await asyncio.gather(*(ask(engine, source, pictures(1)) for _ in range(20)))
        assert len(answers) == 20
        assert loads == [source.model_id]

    run(work)


def test_the_oldest_is_forgotten(store: FolderStore, tmp_path: Path, loads: list[UUID]) -> None:
    first, second, third = (tiny_source(store, tmp_path / "c", seed=seed) for seed in range(3))

    async def work(engine: Engine) -> None:
        for source in (first, second, first, third, first, second):
            await ask(engine, source, pictures(1))

    run(work, max_loaded_models=2)
    wanted = [first, second, third, second]
    assert loads == [source.model_id for source in wanted]


def test_requests_under_way_survive_forgetting(store: FolderStore, tmp_path: Path) -> None:
    sources = [tiny_source(store, tmp_path / "c", seed=seed) for seed in range(4)]

    async def work(engine: Engine) -> None:
        answers = await asyncio.gather(
            *(ask(engine, source, pictures(3)) for source in sources * 5)
        )
        assert [len(answer) for answer in answers] == [3] * 20

    run(work, max_loaded_models=1)


def test_a_model_in_use_is_unloaded_after_its_requests_and_new_ones_load_it_again(
    store: FolderStore, tmp_path: Path, loads: list[UUID]
) -> None:
    first, second = (tiny_source(store, tmp_path / "c", seed=seed) for seed in range(2))

    async def work(engine: Engine) -> None:
        [before] = await ask(engine, first, pictures(1))
        held = Held()
        using = asyncio.create_task(engine.answer(first, [held]))
        await held.has_begun()
        other = asyncio.create_task(ask(engine, second, pictures(1)))
        while engine._shelf.loaded():  # the first is on its way out
            await asyncio.sleep(0.001)
        again = asyncio.create_task(ask(engine, first, pictures(1)))
        await asyncio.sleep(0.01)
        assert loads == [first.model_id]
        held.gate.set()
        [answer] = (await using).results
        assert isinstance(answer, Answer)
        np.testing.assert_array_equal(answer.embedding_D, before.embedding_D)
        assert len(await other) == 1
        np.testing.assert_array_equal((await again)[0].embedding_D, before.embedding_D)
        assert loads == [first.model_id, second.model_id, first.model_id]

    run(work, max_loaded_models=1)


def test_memory_is_a_limit_and_pinned_models_stay(
    store: FolderStore, tmp_path: Path, loads: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (tiny_source(store, tmp_path / "c", seed=seed) for seed in range(3))
    grown = iter(range(0, 2**40, 400 * 2**20))  # each load takes 400 MB
    monkeypatch.setattr(model_module, "resident_bytes", lambda: next(grown))

    async def work(engine: Engine) -> None:
        for source in (first, second, third, first):
            await ask(engine, source, pictures(1))
        assert loads == [s.model_id for s in (first, second, third, first)]
        engine.pin(frozenset({first.model_id}))
        await ask(engine, second, pictures(1))
        await ask(engine, third, pictures(1))
        await ask(engine, first, pictures(1))
        assert loads[4:] == [second.model_id, third.model_id]
        engine.pin(frozenset({first.model_id, third.model_id}))
        with pytest.raises(NoRoomForModel, match="pinned"):
            await ask(engine, second, pictures(1))

    run(work, inference_memory_mb=801)


def test_a_model_larger_than_the_memory_unloads_nobody(
    store: FolderStore, tmp_path: Path, loads: list[UUID]
) -> None:
    small = tiny_source(store, tmp_path / "c")
    manifest = {**small.manifest, "files": {WEIGHTS: {"sha256": "0" * 64, "bytes": 2**40}}}
    large = ModelSource(UUID(int=7), manifest, store, tmp_path / "c")

    async def work(engine: Engine) -> None:
        await ask(engine, small, pictures(1))
        with pytest.raises(NoRoomForModel, match=r"1048576 MB.*INFERENCE_MEMORY_MB"):
            await ask(engine, large, pictures(1))
        await ask(engine, small, pictures(1))
        assert loads == [small.model_id]

    run(work)


def test_failed_load_is_tried_again(
    store: FolderStore, source: ModelSource, tmp_path: Path, loads: list[UUID]
) -> None:
    sha256 = stored_files(source.manifest)[WEIGHTS].sha256
    (blob,) = (tmp_path / "blobs").rglob(sha256)
    whole = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(whole[:-4] + b"oops")

    async def work(engine: Engine) -> None:
        outcomes = await asyncio.gather(
            *(ask(engine, source, pictures(1)) for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(outcome, ArtifactCorrupt) for outcome in outcomes)
        assert len({id(outcome) for outcome in outcomes}) == 3  # a traceback is written into each
        assert loads == []  # nothing is read from bytes whose checksum does not hold
        blob.write_bytes(whole)
        assert len(await ask(engine, source, pictures(2))) == 2

    run(work)


def test_caller_that_leaves_does_not_stop_the_load(source: ModelSource, loads: list[UUID]) -> None:
    async def work(engine: Engine) -> None:
        impatient = asyncio.create_task(ask(engine, source, pictures(1)))
        patient = asyncio.create_task(ask(engine, source, pictures(1)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        impatient.cancel()
        assert len(await patient) == 1
        assert len(loads) == 1

    run(work)
