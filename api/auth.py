"""Who calls: bearer keys, and the scope that each operation needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session, sessionmaker

from core import auth
from core.auth import Caller, Scope
from core.config import Settings
from core.errors import Forbidden, Unauthenticated

bearer = HTTPBearer(auto_error=False, description="An API key: `fewlabels keys create`.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


def identify(sessions: sessionmaker[Session], settings: Settings, secret: str | None) -> Caller:
    """The caller behind a key, or the local caller when authentication is off.

    Uses a transaction of its own, so that a key's last use is kept when the request fails.

    Raises:
        Unauthenticated: Keys are needed and this is none.
    """
    with sessions.begin() as session:
        if settings.auth_mode == "off":
            return auth.local_caller(session)
        if secret is None:
            raise Unauthenticated("send the API key as `Authorization: Bearer fl_…`")
        return auth.verify_key(session, secret)


def require(caller: Caller, scope: Scope) -> Caller:
    """Raise Forbidden unless the caller holds the scope."""
    if not caller.may(scope):
        held = ", ".join(sorted(caller.scopes))
        raise Forbidden(f"the API key has the scopes {held}; this operation needs {scope}")
    return caller


def caller_with(scope: Scope) -> Callable[..., Caller]:
    """A dependency: the caller, who must hold the scope."""

    def dependency(request: Request, credentials: Credentials) -> Caller:
        state = request.app.state
        secret = credentials.credentials if credentials else None
        return require(identify(state.sessions, state.settings, secret), scope)

    return dependency


ReadCaller = Annotated[Caller, Depends(caller_with("read"))]
WriteCaller = Annotated[Caller, Depends(caller_with("write"))]
