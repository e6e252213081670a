"""The serving path's memory of keys and aliases, so that it rarely asks the database."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session, sessionmaker

from api.auth import identify
from core.auth import Caller
from core.config import Settings
from core.registry.artifact import ModelSource
from core.registry.service import resolve_model, source_of
from core.storage.store import BlobStore

ValueT = TypeVar("ValueT")
MAX_ENTRIES = 10_000


class Lookup:
    """Verified keys and resolved model names, believed for a second (a setting)."""

    def __init__(
        self, sessions: sessionmaker[Session], store: BlobStore, settings: Settings
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._settings = settings
        self._known: OrderedDict[tuple[object, ...], tuple[float, object]] = OrderedDict()

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

    async def _cached(self, key: tuple[object, ...], find: Callable[[], ValueT]) -> ValueT:
        now = time.monotonic()
        entry = self._known.get(key)
        if entry is not None and now < entry[0]:
            return entry[1]  # type: ignore[return-value]
        value = await run_in_threadpool(find)
        self._known[key] = (now + self._settings.key_cache_seconds, value)
        self._known.move_to_end(key)
        while len(self._known) > MAX_ENTRIES:
            self._known.popitem(last=False)
        return value
