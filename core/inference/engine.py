"""Models in memory, asked in three steps: decode, forward, answer; nobody is left waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

import torch

from core.config import Settings
from core.errors import DeadlineExceeded, FewlabelsError, Overloaded
from core.inference.batcher import Batched, Batcher, shutting_down
from core.inference.flight import Decoding, Flight, Load, Timing, depart, timing, together
from core.inference.model import Answer, LoadedModel, usable
from core.inference.runtimes import Placement
from core.inference.shelf import MB, Served, Shelf
from core.learning.intraop import use_threads
from core.learning.runtimes import Pixels
from core.registry.artifact import ModelSource
from core.telemetry import INFERENCE_SECONDS, logger

log = logger(__name__)
STEPS = {step: INFERENCE_SECONDS.labels(step) for step in ("decode", "queue", "forward")}


@dataclass(frozen=True, slots=True)
class Answered:
    """What one model says of a request's images, in their order; an error of ours for a bad one."""

    model: LoadedModel
    results: list[Answer | FewlabelsError]
    timing: Timing


class Engine:
    """Answers from models in memory; lives on one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Each pass uses all cores or the whole device: two at once would fight for them.
        self._turn = threading.Lock()
        threads = settings.inference_threads
        self._pools = Decoding(_threads(threads, "preprocess"), _threads(threads, "decode-aside"))
        # Serving goes on without a GPU where only the workers have one.
        on_gpu = settings.device != "cpu" and torch.cuda.is_available()
        self._placement = Placement(
            device="cuda" if on_gpu else "cpu",
            runtime=settings.inference_runtime,
            # Processes times threads must not exceed the cores.
            threads=max(1, torch.get_num_threads() // settings.api_processes),
            batch=settings.inference_batch,
        )
        self._shelf = Shelf(
            self._load,
            self._batcher,
            self._file_of,
            most=settings.max_loaded_models,
            memory_bytes=settings.inference_memory_mb * MB,
            places=settings.inference_queue,
        )
        self._closed = False
        self._probe: asyncio.Task[None] | None = None

    async def model(self, source: ModelSource) -> LoadedModel:
        """The model in memory, for vectors and for classes; loaded once, however many ask for it.

        Raises:
            ArtifactCorrupt: Its weights do not have the checksum of the manifest.
            NoRoomForModel: The memory limit has no room for it.
        """
        if self._placement.apart(source):
            with self._shelf.held(source, labels_only=True) as kept:
                await kept.ready()
        with self._shelf.held(source) as kept:
            return (await kept.ready()).model

    def pin(self, model_ids: frozenset[UUID]) -> None:
        """Keep exactly these models in memory, once they are loaded."""
        self._shelf.pin(model_ids)

    async def answer(
        self,
        source: ModelSource,
        images: Sequence[Load],
        *,
        seconds: float | None = None,
        labels_only: bool = False,
    ) -> Answered:
        """What the model says of images, in their order.

        A caller that is cancelled, or whose time is over, frees its places at once; what of it has
        not begun is not worked for.

        Args:
            source: The model.
            images: Each gives the decoded pixels (H, W, 3) when it is called, or what will give
                them where that may take long. They are called on the engine's few threads, so that
                only as many large images are in memory at once.
            seconds: How long the caller waits, within what the settings allow.
            labels_only: The vectors are not looked at, so that they may come from eight bits.

        Raises:
            Overloaded: Too many images are on their way to this model.
            DeadlineExceeded: The answer did not come in time.
            ArtifactCorrupt: The model's weights do not have the checksum of the manifest.
            NoRoomForModel: The memory limit has no room for it.
        """
        if self._closed:
            raise shutting_down()
        longest = self._settings.inference_seconds
        allowed = longest if seconds is None else min(seconds, longest)
        try:
            async with asyncio.timeout(allowed) as time_limit:
                return await self._answer(source, images, labels_only=labels_only)
        except TimeoutError:
            if not time_limit.expired():
                raise
            raise DeadlineExceeded(f"the model did not answer within {allowed:g} seconds") from None

    async def _answer(
        self, source: ModelSource, images: Sequence[Load], *, labels_only: bool
    ) -> Answered:
        apart = labels_only and self._placement.apart(source)
        with self._shelf.held(source, labels_only=apart) as kept:
            item_seconds = kept.served.batcher.item_seconds if kept.served else 0.0
            with kept.admission.places(len(images), item_seconds=item_seconds):
                served = await kept.ready()
                flights = [Flight(load) for load in images]
                groups = self._settings.inference_threads
                depart(flights, self._pools, served.model, served.batcher, groups=groups)
                await together([flight.future for flight in flights])
        spent = timing(flights)
        for step, seconds in STEPS.items():
            seconds.observe(getattr(spent, step))
        return Answered(served.model, [_result(flight) for flight in flights], spent)

    async def check(self) -> None:
        """Raise RuntimeError or TimeoutError when the engine can no longer answer.

        Every loaded model is asked for an answer, through its batcher, before all that wait.
        """
        if self._closed:
            raise RuntimeError("the engine is closed")
        # Whoever asks meanwhile waits for the same probe: asking often costs no passes.
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._ask_all())
        await asyncio.shield(self._probe)

    async def _ask_all(self) -> None:
        async with asyncio.timeout(self._settings.probe_seconds):
            await asyncio.gather(*(_ask(served) for served in self._shelf.loaded()))

    async def close(self) -> None:
        """Stop answering: who waits gets an error, who is being answered an answer."""
        self._closed = True
        for pool in (self._pools.ordinary, self._pools.aside):
            pool.shutdown(wait=False, cancel_futures=True)
        await self._shelf.close()

    def _load(self, source: ModelSource, labels_only: bool) -> LoadedModel:
        return LoadedModel(source, replace(self._placement, labels_only=labels_only))

    def _file_of(self, source: ModelSource, labels_only: bool) -> str:
        return replace(self._placement, labels_only=labels_only).file_of(source)

    def _batcher(self, model: LoadedModel) -> Batcher[Pixels, Answer]:
        most = self._settings.images_a_pass(model.preprocessing.image_size)
        return Batcher(model.forward, max_batch=most, turn=self._turn)


def _threads(count: int, name: str) -> ThreadPoolExecutor:
    # Images are resized side by side: more threads for one would fight with the passes.
    one_each = partial(use_threads, 1)
    return ThreadPoolExecutor(count, thread_name_prefix=name, initializer=one_each)


async def _ask(served: Served) -> None:
    if not served.batcher.alive:
        raise RuntimeError(f"model {served.model.model_id}: its forward thread has died")
    future: Future[Batched[Answer]] = Future()
    served.batcher.put(served.model.blank(), future, first=True)
    try:
        await together([future])
    finally:
        future.cancel()
    if (error := future.exception()) is not None:
        raise RuntimeError(f"model {served.model.model_id} does not answer") from error


def _result(flight: Flight) -> Answer | FewlabelsError:
    error = flight.future.exception()
    if error is None:
        return usable(flight.future.result().result)
    if isinstance(error, Overloaded) or not isinstance(error, FewlabelsError):
        raise error  # of the whole request
    return error
