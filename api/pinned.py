"""Models that are loaded before anybody asks, and stay: those of the setting, as aliases move."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.auth import DEFAULT_PROJECT, caller_of_project
from core.config import Settings
from core.errors import FewlabelsError
from core.registry.artifact import ModelSource
from core.registry.service import resolve_model, source_of
from core.storage.store import BlobStore
from core.telemetry import logger

if TYPE_CHECKING:
    from core.inference.engine import Engine

log = logger(__name__)
# As long as a resolved alias is believed, so that a moved one is warm when it is called.
SECONDS = 1.0


class PinnedModels:
    """Keeps the models of `FEWLABELS_PINNED_MODELS` in memory.

    `warmed` says whether every one of them that there is has been loaded once, or cannot be.
    """

    def __init__(
        self, sessions: sessionmaker[Session], store: BlobStore, settings: Settings
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._folder = settings.data_dir / "models"
        self._references = settings.pinned
        self._failing: dict[str, str] = {}
        self.warmed = not self._references

    async def keep(self, engine: Engine) -> None:
        """Follow the aliases until cancelled; what goes wrong is logged when it changes."""
        while self._references:
            await self._step(engine)
            await asyncio.sleep(SECONDS)

    async def _step(self, engine: Engine) -> None:
        try:
            sources = await run_in_threadpool(self._resolve)
        except SQLAlchemyError as error:
            self._note("all", error)
            return
        engine.pin(frozenset(source.model_id for source in sources.values()))
        for reference, source in sources.items():
            try:
                await engine.model(source)
            except FewlabelsError as error:
                self._note(reference, error)
            else:
                self._failing.pop(reference, None)
        self.warmed = True

    def _resolve(self) -> dict[str, ModelSource]:
        sources = {}
        with self._sessions.begin() as session:
            for reference in self._references:
                project, _, name = reference.rpartition("/")
                try:
                    caller = caller_of_project(session, project or DEFAULT_PROJECT)
                    model = resolve_model(session, caller, name)
                except FewlabelsError as error:  # it may come yet
                    self._note(reference, error)
                else:
                    sources[reference] = source_of(model, self._store, self._folder)
        return sources

    def _note(self, reference: str, error: Exception) -> None:
        said = f"{type(error).__name__}: {error}"
        if self._failing.get(reference) != said:
            log.warning("a pinned model is not in memory", reference=reference, error=said)
            self._failing[reference] = said


async def start(state: Any) -> None:
    """Load and keep the pinned models of an application, once its engine is there."""
    await state.pinned.keep(await asyncio.shield(state.engine))
