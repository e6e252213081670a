"""Which models are in memory: loaded once, within a limit, never taken from under a request."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from core.errors import FewlabelsError, NoRoomForModel
from core.inference.admission import Admission
from core.inference.batcher import Batcher, shutting_down
from core.inference.model import Answer, LoadedModel
from core.learning.runtimes import Pixels
from core.registry.artifact import ModelSource, stored_files
from core.telemetry import logger

log = logger(__name__)
MB = 2**20
Key = tuple[UUID, bool]


@dataclass(frozen=True, slots=True)
class Served:
    """A model that answers, and its batcher."""

    model: LoadedModel
    batcher: Batcher[Pixels, Answer]


@dataclass(slots=True, eq=False)
class Kept:
    """A model that is loaded, or being loaded, and who uses it."""

    source: ModelSource
    admission: Admission
    labels_only: bool = False
    task: asyncio.Task[Served] | None = None
    users: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def key(self) -> Key:
        """What it is kept under: for classes alone a model may be loaded in another way."""
        return self.source.model_id, self.labels_only

    @property
    def served(self) -> Served | None:
        """The model, once it is there."""
        task = self.task
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return task.result()

    async def ready(self) -> Served:
        """The model, when it is loaded.

        Raises:
            ArtifactCorrupt: Its weights do not have the checksum of the manifest.
            NoRoomForModel: The limit has no room for it.
        """
        assert self.task is not None
        try:
            # A caller that goes away does not stop a load that others wait for.
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if self.task.cancelled():  # the load, not its caller
                raise shutting_down() from None
            raise
        except FewlabelsError as error:
            raise copy(error) from error  # one for each caller: a traceback is written into it


class Shelf:
    """Models within a number and a memory limit, least recently used first out; on one loop.

    Args:
        load: Makes a model that answers, for classes alone or for all; called on a thread, one at
            a time.
        batcher: The batcher of a loaded model.
        file_of: Which file of the artefact it is loaded from.
        most: Models at a time.
        memory_bytes: What all of them may take.
        places: Images on their way to one model.
    """

    def __init__(
        self,
        load: Callable[[ModelSource, bool], LoadedModel],
        batcher: Callable[[LoadedModel], Batcher[Pixels, Answer]],
        file_of: Callable[[ModelSource, bool], str],
        *,
        most: int,
        memory_bytes: int,
        places: int,
    ) -> None:
        self._load_model = load
        self._batcher = batcher
        self._file_of = file_of
        self._most = most
        self._memory = memory_bytes
        self._places = places
        self._kept: OrderedDict[Key, Kept] = OrderedDict()
        self._leaving: set[Kept] = set()
        self._pinned: frozenset[UUID] = frozenset()
        self._loading = asyncio.Lock()  # one at a time, so that what each takes can be measured
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="load")

    @contextmanager
    def held(self, source: ModelSource, *, labels_only: bool = False) -> Iterator[Kept]:
        """The model, loaded or not, which stays as long as it is held."""
        key = source.model_id, labels_only
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = Kept(source, Admission(self._places), labels_only)
            kept.task = asyncio.create_task(self._load(kept))
            kept.task.add_done_callback(partial(self._forget_failed, kept))
        self._kept.move_to_end(key)
        kept.users += 1
        kept.idle.clear()
        try:
            yield kept
        finally:
            kept.users -= 1
            if kept.users == 0:
                kept.idle.set()

    def pin(self, model_ids: frozenset[UUID]) -> None:
        """Keep exactly these, once loaded, whatever else is asked for."""
        self._pinned = model_ids

    def loaded(self) -> list[Served]:
        """All models that are in memory and answer."""
        return [served for kept in self._kept.values() if (served := kept.served)]

    async def close(self) -> None:
        """End all; what waits for a model gets an error."""
        loop = asyncio.get_running_loop()
        everybody = [*self._kept.values(), *self._leaving]
        for kept in everybody:
            if kept.served is None and kept.task is not None:
                kept.task.cancel()
        closing = [
            loop.run_in_executor(None, served.batcher.close)
            for kept in everybody
            if (served := kept.served)
        ]
        await asyncio.gather(*closing)
        self._kept.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _load(self, kept: Kept) -> Served:
        loop = asyncio.get_running_loop()
        weights = self._file_of(kept.source, kept.labels_only)
        stated = stored_files(kept.source.manifest)[weights].byte_count
        if stated > self._memory:
            raise NoRoomForModel(
                f"model: its weights take {stated / MB:.0f} MB, all models together may take "
                f"{self._memory / MB:.0f} MB (FEWLABELS_INFERENCE_MEMORY_MB)"
            )
        # Fetched before its turn: a slow store keeps nobody else waiting.
        await loop.run_in_executor(self._threads, kept.source.fetch, weights)
        async with self._loading:
            await self._make_room(stated)
            load = partial(self._load_model, kept.source, kept.labels_only)
            model = await loop.run_in_executor(self._threads, load)
            await self._trim(model.byte_count)
        log.info(
            "model loaded",
            model_id=str(model.model_id),
            runtime=model.runtime,
            megabytes=round(model.byte_count / MB, 1),
        )
        return Served(model, self._batcher(model))

    async def _make_room(self, wanted: int) -> None:
        while not self._has_room(wanted):
            kept = self._least_needed()
            if kept is None:
                raise NoRoomForModel(
                    "model: the pinned models (FEWLABELS_PINNED_MODELS) leave no room for another; "
                    "raise FEWLABELS_MAX_LOADED_MODELS or FEWLABELS_INFERENCE_MEMORY_MB"
                )
            await self._dismiss(kept)

    async def _trim(self, measured: int) -> None:
        """Make room for what a model just loaded turned out to take, as far as there is any."""
        while not self._has_room(measured) and (kept := self._least_needed()) is not None:
            await self._dismiss(kept)

    def _has_room(self, wanted: int) -> bool:
        there = self.loaded()
        taken = sum(served.model.byte_count for served in there)
        return len(there) < self._most and taken + wanted <= self._memory

    def _least_needed(self) -> Kept | None:
        candidates = [
            kept
            for (model_id, _), kept in self._kept.items()
            if kept.served is not None and model_id not in self._pinned
        ]
        idle = (kept for kept in candidates if kept.users == 0)
        return next(idle, candidates[0] if candidates else None)

    async def _dismiss(self, kept: Kept) -> None:
        """Unload a model when its requests are answered; new ones load it again after this."""
        served = kept.served
        assert served is not None
        del self._kept[kept.key]
        self._leaving.add(kept)
        try:
            if kept.users:
                await kept.idle.wait()
            await asyncio.get_running_loop().run_in_executor(None, served.batcher.close)
        finally:
            self._leaving.discard(kept)
        log.info("model unloaded", model_id=str(kept.source.model_id))

    def _forget_failed(self, kept: Kept, _: asyncio.Task[Served]) -> None:
        # Whoever comes next tries again; looking at the exception marks it as seen.
        if kept.served is None and self._kept.get(kept.key) is kept:
            del self._kept[kept.key]
