"""What routes are handed: session, settings, store, decoders, pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, cast

from fastapi import Depends, Query, Request
from sqlalchemy.orm import Session

from core.config import Settings
from core.images.pool import DecodePool
from core.storage.store import BlobStore


def get_session(request: Request) -> Iterator[Session]:
    """One transaction a request: commits before the response is sent, or rolls back."""
    with request.app.state.sessions.begin() as session:
        request.state.session = session  # for the answer that is kept under an Idempotency-Key
        yield session


def get_settings(request: Request) -> Settings:
    """The settings that the application was made with."""
    return cast(Settings, request.app.state.settings)


def get_store(request: Request) -> BlobStore:
    """The blob store."""
    return cast(BlobStore, request.app.state.store)


def get_decoders(request: Request) -> DecodePool:
    """The processes that look at uploaded images."""
    return cast(DecodePool, request.app.state.decoders)


SessionDep = Annotated[Session, Depends(get_session, scope="function")]
SettingsDep = Annotated[Settings, Depends(get_settings)]
StoreDep = Annotated[BlobStore, Depends(get_store)]
DecodersDep = Annotated[DecodePool, Depends(get_decoders)]
Cursor = Annotated[str | None, Query(description="The next_cursor of the page before.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most items on a page.")]
