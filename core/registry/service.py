"""Models: find, list, delete, open their files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from core.auth import Caller
from core.db.models import Alias, Job, Model
from core.db.paging import Page, fetch_page
from core.db.unfinished import require_unneeded
from core.errors import FileNotInModel, InUse, ModelNotFound, WrongModelKind
from core.registry.artifact import MANIFEST, ModelSource, file_key, manifest_bytes, stored_files
from core.storage.store import BlobStore


def get_model(
    session: Session,
    caller: Caller,
    model_id: UUID,
    *,
    lock: bool = False,
    deleting: bool = False,
) -> Model:
    """The caller's model; `lock` holds off its deletion until the transaction ends.

    `deleting` waits for those who hold it so, and for others who delete it.

    Raises:
        ModelNotFound: There is none, or it is another project's.
    """
    statement = select(Model).where(Model.id == model_id, Model.project_id == caller.project_id)
    if lock:
        statement = statement.with_for_update(read=True, key_share=True)
    if deleting:
        statement = statement.with_for_update()
    model = session.scalars(statement).one_or_none()
    if model is None:
        raise ModelNotFound(f"model_id: no model has the id {model_id}")
    return model


def as_id(reference: str) -> UUID | None:
    """The id that a reference is in any of the ways to write one; None for an alias."""
    try:
        return UUID(reference)
    except ValueError:
        return None


def resolve_model(session: Session, caller: Caller, reference: str) -> Model:
    """The caller's model by id or alias.

    Raises:
        ModelNotFound: Neither a model nor an alias of the caller's project is called so.
    """
    model_id = as_id(reference)
    if model_id is not None:
        return get_model(session, caller, model_id)
    model = session.scalars(
        select(Model)
        .join(Alias, (Alias.model_id == Model.id) & (Alias.project_id == Model.project_id))
        .where(Alias.name == reference, Alias.project_id == caller.project_id)
    ).one_or_none()
    if model is None:
        raise ModelNotFound(f"model: no model or alias is called {reference[:200]!r}")
    return model


def list_models(
    session: Session,
    caller: Caller,
    *,
    filters: Mapping[str, object],
    cursor: str | None,
    limit: int,
) -> Page[Model]:
    """The caller's models, newest first; filters with the value None are not applied."""
    given = {name: value for name, value in filters.items() if value is not None}
    statement = select(Model).where(Model.project_id == caller.project_id).filter_by(**given)
    return fetch_page(session, statement, Model, cursor=cursor, limit=limit)


def require_kind(model: Model, kind: str) -> None:
    """Raise WrongModelKind unless the model is of the kind."""
    if model.kind != kind:
        raise WrongModelKind(f"model {model.id}: found {_article(model.kind)}; needs a {kind}")


def source_of(model: Model, store: BlobStore, cache_folder: Path) -> ModelSource:
    """What the engine and the stages load the model from."""
    return ModelSource(model.id, model.manifest, store, cache_folder)


def file_digest(model: Model, name: str) -> str:
    """The sha256 of a file of the model's artefact.

    Raises:
        FileNotInModel: The artefact has no such file.
    """
    if name == MANIFEST:
        return hashlib.sha256(manifest_bytes(model.manifest)).hexdigest()
    files = stored_files(model.manifest)
    if name not in files:
        allowed = ", ".join(sorted({*files, MANIFEST}))
        raise FileNotInModel(f"name: the model has no file {name[:200]!r}; it has {allowed}")
    return files[name].sha256


def read_file(model: Model, store: BlobStore, name: str) -> bytes:
    """The bytes of a file of the model's artefact.

    Raises:
        FileNotInModel: The artefact has no such file.
    """
    if name == MANIFEST:
        return manifest_bytes(model.manifest)
    return store.get(file_key(file_digest(model, name)))


def delete_model(session: Session, caller: Caller, model_id: UUID) -> None:
    """Remove a model.

    Raises:
        ModelNotFound: There is none, or it is another project's.
        InUse: An alias points to it or an unfinished job needs it.
    """
    model = get_model(session, caller, model_id, deleting=True)
    aliases = session.scalars(select(Alias.name).where(Alias.model_id == model.id)).all()
    if aliases:
        raise InUse(f"model_id: the aliases {', '.join(sorted(aliases))} point to this model")
    named = (Job.spec[field].astext == str(model.id) for field in ("model_id", "student_model_id"))
    needs = or_(Job.needs_id == model.job_id, *named)
    require_unneeded(session, needs, "model_id: this model")
    session.execute(delete(Model).where(Model.id == model.id))


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
