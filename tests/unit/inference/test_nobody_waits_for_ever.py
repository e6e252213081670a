"""Deadlines, full queues, callers that left, dead threads and the end: all are told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from core.errors import (
    BatchFailed,
    DeadlineExceeded,
    Overloaded,
)
from core.inference.engine import Engine
from core.inference.model import Answer, LoadedModel
from core.inference.runtimes import Placement
from core.registry.artifact import ModelSource
from tests.unit.inference.engine_runs import LIMIT, Held, Pixels, ask, pictures, run


def test_the_deadline_frees_the_place(source: ModelSource) -> None:
    async def work(engine: Engine) -> None:
        await engine.model(source)
        held = Held()
        with pytest.raises(DeadlineExceeded, match=r"within 0\.05 seconds"):
            await engine.answer(source, [held, held], seconds=0.05)
        # Its two places are free though its first image is still being decoded.
        going = asyncio.create_task(engine.answer(source, [held, held]))
        await asyncio.sleep(0)
        held.gate.set()
        assert len((await going).results) == 2
        assert held.calls in {2, 3}  # of the late request what had begun, at most

    run(work, inference_queue=2, inference_threads=1)


def test_the_settings_bound_what_a_caller_may_wait(source: ModelSource) -> None:
    async def work(engine: Engine) -> None:
        with pytest.raises(DeadlineExceeded, match="1e-05 seconds"):
            await engine.answer(source, [Held()], seconds=60)

    run(work, inference_seconds=1e-5)


def test_what_waits_to_be_decoded_counts_and_the_full_are_told_at_once(source: ModelSource) -> None:
    async def work(engine: Engine) -> None:
        await engine.model(source)
        held = Held()
        going = asyncio.create_task(engine.answer(source, [held] * 3))
        await held.has_begun()
        with pytest.raises(Overloaded, match=r"3 images are.*at most 4.*has 2") as caught:
            await ask(engine, source, pictures(2))
        assert caught.value.retry_after == 1
        alone = asyncio.create_task(ask(engine, source, pictures(1)))
        await asyncio.sleep(0)
        held.gate.set()
        assert len((await going).results) == 3
        assert len(await alone) == 1
        assert len(await ask(engine, source, pictures(4))) == 4

    run(work, inference_queue=4, inference_threads=1)


def test_who_has_gone_is_not_decoded_for(source: ModelSource) -> None:
    async def work(engine: Engine) -> None:
        await engine.model(source)
        first, second = Held(), Held()
        staying = asyncio.create_task(engine.answer(source, [first]))
        await first.has_begun()
        going = asyncio.create_task(engine.answer(source, [second] * 3))
        await asyncio.sleep(0)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        first.gate.set()
        assert len((await staying).results) == 1
        assert len(await ask(engine, source, pictures(4))) == 4
        assert second.calls == 0

    run(work, inference_queue=4, inference_threads=1)


def test_closing_answers_everybody(source: ModelSource) -> None:
    async def work(engine: Engine) -> None:
        await engine.model(source)
        held = Held()
        asking = [asyncio.create_task(engine.answer(source, [held] * 2)) for _ in range(3)]
        await held.has_begun()
        async with asyncio.timeout(LIMIT):
            # Had the gate opened before, the first might have been in time for an answer.
            await engine.close()
            held.gate.set()
            outcomes = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(outcome, Overloaded) for outcome in outcomes)
        with pytest.raises(Overloaded, match="shutting down"):
            await ask(engine, source, pictures(1))

    run(work, inference_threads=1)


def test_closing_during_a_load_answers_who_waits_for_it(
    source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = threading.Event(), threading.Event()
    original = LoadedModel.__init__

    def slow(self: LoadedModel, source: ModelSource, placement: Placement) -> None:
        begun.set()
        assert gate.wait(LIMIT)
        original(self, source, placement)

    monkeypatch.setattr(LoadedModel, "__init__", slow)

    async def work(engine: Engine) -> None:
        asking = asyncio.create_task(ask(engine, source, pictures(1)))
        assert await asyncio.to_thread(begun.wait, LIMIT)
        await engine.close()
        gate.set()
        with pytest.raises(Overloaded, match="shutting down"):
            await asking

    run(work)


def test_the_probe_goes_through_the_batcher(source: ModelSource) -> None:
    async def work(engine: Engine) -> None:
        await engine.check()  # nothing is loaded
        await engine.model(source)
        await engine.check()
        [served] = engine._shelf.loaded()
        gate = threading.Event()

        def late(canvases: list[Pixels]) -> list[Answer]:
            assert gate.wait(LIMIT)
            return []

        served.batcher._forward = late
        with pytest.raises(TimeoutError):
            await engine.check()
        gate.set()
        with pytest.raises(RuntimeError, match=str(source.model_id)):
            await engine.check()
        served.batcher._forward = served.model.forward
        await engine.check()

    run(work, probe_seconds=2.0)


def test_not_ready_until_the_dead_thread_is_started_again(
    source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[Callable[[], None]] = []

    class Noted:
        daemon = False

        def __init__(self, pause: float, start: Callable[[], None]) -> None:
            pauses.append(start)

        def start(self) -> None:
            pass

    async def work(engine: Engine) -> None:
        await engine.model(source)
        [served] = engine._shelf.loaded()

        def deadly(canvases: list[Pixels]) -> list[Answer]:
            raise SystemExit

        monkeypatch.setattr(threading, "Timer", Noted)
        served.batcher._forward = deadly
        [result] = (await engine.answer(source, [partial(np.asarray, pictures(1)[0])])).results
        assert isinstance(result, BatchFailed)
        await asyncio.to_thread(served.batcher._thread.join, LIMIT)
        with pytest.raises(RuntimeError, match="has died"):
            await engine.check()
        waiting = asyncio.create_task(ask(engine, source, pictures(2)))
        await asyncio.sleep(0)
        served.batcher._forward = served.model.forward
        pauses[0]()
        assert len(await waiting) == 2
        await engine.check()

    run(work)


def test_closed_engine_is_not_ready() -> None:
    async def work(engine: Engine) -> None:
        await engine.check()
        await engine.close()
        with pytest.raises(RuntimeError):
            await engine.check()

    run(work)
