"""The serving path's memory of keys and aliases, so that it rarely asks the database."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from api.auth import identify
from core.auth import Caller
from core.config import Settings
from core.errors import FewlabelsError
from core.registry.artifact import ModelSource
from core.registry.service import resolve_model, source_of
from core.storage.store import BlobStore
from core.telemetry import logger

log = logger(__name__)
ValueT = TypeVar("ValueT")
Key = tuple[object, ...]
MAX_ENTRIES = 10_000
RENEWED_AFTER = 0.5  # of the time that an entry is believed


@dataclass(slots=True)
class _Known:
    value: object
    stale_from: float
    until: float
    renewing: bool = False


class Lookup:
    """Verified keys and resolved model names, believed for a second (a setting)."""

    def __init__(
        self, sessions: sessionmaker[Session], store: BlobStore, settings: Settings
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._settings = settings
        self._known: OrderedDict[Key, _Known] = OrderedDict()
        self._renewals: set[asyncio.Task[None]] = set()

    async def caller(self, secret: str | None) -> Caller:
        """Who calls.

        Raises:
            Unauthenticated: Not with this key.
        """
        return await self._cached(
            ("caller", secret), lambda: identify(self._sessions, self._settings, secret)
        )

    async def source(self, caller: Caller, reference: str) -> ModelSource:
        """The caller's model by id or alias.

        Raises:
            ModelNotFound: There is none, or it is another project's.
        """

        def resolve() -> ModelSource:
            with self._sessions.begin() as session:
                model = resolve_model(session, caller, reference)
                return source_of(model, self._store, self._settings.data_dir / "models")

        return await self._cached(("model", caller.project_id, reference), resolve)

    async def _cached(self, key: Key, find: Callable[[], ValueT]) -> ValueT:
        now = time.monotonic()
        entry = self._known.get(key)
        if entry is None or now >= entry.until:
            return await self._found(key, find)
        if now >= entry.stale_from and not entry.renewing:
            # One of those who ask has it looked up again while it is still believed: under load
            # nobody waits for the database, and it is not asked by all at once.
            entry.renewing = True
            task = asyncio.create_task(self._renewed(key, find))
            self._renewals.add(task)
            task.add_done_callback(self._renewals.discard)
        return cast(ValueT, entry.value)

    async def _found(self, key: Key, find: Callable[[], ValueT]) -> ValueT:
        asked = time.monotonic()
        value = await run_in_threadpool(find)
        seconds = self._settings.key_cache_seconds
        self._known[key] = _Known(value, asked + RENEWED_AFTER * seconds, asked + seconds)
        self._known.move_to_end(key)
        while len(self._known) > MAX_ENTRIES:
            self._known.popitem(last=False)
        return value

    async def _renewed(self, key: Key, find: Callable[[], ValueT]) -> None:
        try:
            await self._found(key, find)
        except (FewlabelsError, SQLAlchemyError) as error:
            self._known.pop(key, None)  # whoever comes next is told
            log.info("a key or a model is no longer there", error=repr(error))
