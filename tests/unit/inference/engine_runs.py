"""Engines on loops of their own, and images whose decoding waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from core.config import Settings
from core.inference.engine import Engine
from core.inference.model import Answer
from core.registry.artifact import ModelSource

Pixels = NDArray[np.uint8]
LIMIT = 20.0


def run(work: Callable[[Engine], Awaitable[None]], **wishes: object) -> None:
    """Do the work with an engine on a loop of its own."""
    settings = Settings(_env_file=None, device="cpu", **wishes)  # type: ignore[arg-type]

    async def main() -> None:
        engine = Engine(settings)
        try:
            await work(engine)
        finally:
            await engine.close()

    asyncio.run(main())


async def ask(engine: Engine, source: ModelSource, images: list[Pixels]) -> list[Answer]:
    """The answers for decoded images, all of which are good."""
    loads = [partial(np.asarray, image) for image in images]
    results = (await engine.answer(source, loads)).results
    answers = [result for result in results if isinstance(result, Answer)]
    assert len(answers) == len(results)
    return answers


def pictures(count: int, seed: int = 0) -> list[Pixels]:
    generator = np.random.default_rng(seed)
    return [
        generator.integers(0, 256, (20 + n, 30 - n % 9, 3), dtype=np.uint8) for n in range(count)
    ]


class Held:
    """A load whose image comes when the gate opens."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.gate = threading.Event()
        self.calls = 0

    def __call__(self) -> Pixels:
        self.calls += 1
        self.begun.release()
        assert self.gate.wait(LIMIT)
        return pictures(1)[0]

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=LIMIT)
