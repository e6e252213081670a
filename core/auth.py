"""API keys: make, hash, verify; a key belongs to one project and carries scopes."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.db.models import ApiKey, Project
from core.errors import ApiKeyNotFound, Invalid, ModelNotFound, Unauthenticated

Scope = Literal["read", "write", "infer", "admin"]
SCOPES: frozenset[str] = frozenset(get_args(Scope))
DEFAULT_PROJECT = "default"
KEY_PREFIX = "fl_"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the project that owns what may be seen, and what may be done there.

    `key_id` and `key_name` are for records of who did what; no key is there without authentication.
    """

    project_id: UUID
    scopes: frozenset[str]
    key_id: UUID | None = None
    key_name: str = "local"

    def may(self, scope: Scope) -> bool:
        """Whether the caller holds the scope; `admin` holds all."""
        return scope in self.scopes or "admin" in self.scopes


def digest_of(secret: str) -> str:
    """The stored form of a key: 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def ensure_project(session: Session, name: str) -> UUID:
    """The id of the project of this name, made when there is none."""
    session.execute(insert(Project).values(name=name).on_conflict_do_nothing())
    return session.scalars(select(Project.id).where(Project.name == name)).one()


def caller_of_project(session: Session, name: str) -> Caller:
    """The service itself, asking models of a project.

    Raises:
        ModelNotFound: There is no such project, and so no model of it.
    """
    project_id = session.scalars(select(Project.id).where(Project.name == name)).one_or_none()
    if project_id is None:
        raise ModelNotFound(f"model: no project is called {name!r}")
    return Caller(project_id, frozenset({"infer"}))


def create_key(
    session: Session,
    *,
    project: str,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key; the second value is the secret, which is not kept anywhere.

    Raises:
        Invalid: A scope is unknown.
    """
    unknown = sorted(set(scopes) - SCOPES)
    if unknown or not scopes:
        found = ", ".join(unknown) or "none"
        raise Invalid(f"scopes: found {found}; allowed are {', '.join(sorted(SCOPES))}")
    for field, text in (("name", name), ("project", project)):
        if not 1 <= len(text) <= 200 or "\0" in text:
            raise Invalid(f"{field}: found {len(text)} characters; allowed are 1 to 200")
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
        project_id=ensure_project(session, project),
        name=name,
        digest=digest_of(secret),
        scopes=sorted(set(scopes)),
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    return key, secret


def list_keys(session: Session) -> list[tuple[ApiKey, str]]:
    """All keys with the names of their projects, newest first."""
    rows = session.execute(
        select(ApiKey, Project.name)
        .join(Project, Project.id == ApiKey.project_id)
        .order_by(ApiKey.created_at.desc())
    )
    return [(key, project) for key, project in rows]


def revoke_key(session: Session, key_id: UUID) -> None:
    """End a key at once; the serving path believes it for `key_cache_seconds` more at most.

    Raises:
        ApiKeyNotFound: There is none of this id.
    """
    ended = (
        update(ApiKey)
        .where(ApiKey.id == key_id)
        .values(revoked_at=func.coalesce(ApiKey.revoked_at, datetime.now(UTC)))
        .returning(ApiKey.id)
    )
    if session.scalar(ended) is None:
        raise ApiKeyNotFound(f"no API key has the id {key_id}")


def verify_key(session: Session, secret: str) -> Caller:
    """Whose key this is.

    Raises:
        Unauthenticated: The key is unknown, expired or revoked; the words do not say which.
    """
    now = datetime.now(UTC)
    key = session.scalars(select(ApiKey).where(ApiKey.digest == digest_of(secret))).one_or_none()
    if key is None or key.revoked_at or (key.expires_at and key.expires_at <= now):
        raise Unauthenticated("the API key is unknown, expired or revoked")
    if key.last_used_at is None or (now - key.last_used_at).total_seconds() > 60:
        key.last_used_at = now
    return Caller(key.project_id, frozenset(key.scopes), key.id, key.name)


def local_caller(session: Session) -> Caller:
    """The caller when authentication is off: the default project with every scope."""
    return Caller(ensure_project(session, DEFAULT_PROJECT), SCOPES)
