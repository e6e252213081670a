"""Who calls: bearer keys, and the scope that each operation needs."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.concurrency import run_in_threadpool
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


async def caller_of(request: Request, scope: Scope) -> Caller:
    """Who calls; holds the scope.

    The serving path believes a key for `key_cache_seconds`; all others ask the database.

    Raises:
        Unauthenticated: Not with this key.
        Forbidden: The key lacks the scope.
    """
    state = request.app.state
    credentials = await bearer(request)
    secret = credentials.credentials if credentials else None
    if scope == "infer":
        caller = cast(Caller, await state.lookup.caller(secret))
    else:
        caller = await run_in_threadpool(identify, state.sessions, state.settings, secret)
    if not caller.may(scope):
        held = ", ".join(sorted(caller.scopes))
        raise Forbidden(f"the API key has the scopes {held}; this operation needs {scope}")
    return caller


class NeedsScope:
    """A dependency: the caller, whom the guarded route has found before it read the body."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request, credentials: Credentials) -> Caller:
        """The caller; the credentials are asked for so that OpenAPI shows the scheme.

        Raises:
            RuntimeError: The route is not guarded; nobody gets in by it.
        """
        del credentials
        caller: Caller | None = getattr(request.state, "caller", None)
        if caller is None:
            raise RuntimeError(
                f"{request.url.path}: its router needs route_class=GuardedRoute (api.guard)"
            )
        return caller


ReadCaller = Annotated[Caller, Security(NeedsScope("read"), scopes=["read"])]
WriteCaller = Annotated[Caller, Security(NeedsScope("write"), scopes=["write"])]
InferCaller = Annotated[Caller, Security(NeedsScope("infer"), scopes=["infer"])]
