"""Aliases: stable names for changing models."""

from __future__ import annotations

import re
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.auth import Caller
from core.db.models import Alias, Model
from core.errors import ModelNotFound, NothingBefore, RequestInvalid
from core.registry.service import as_id, get_model

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


def put_alias(session: Session, caller: Caller, name: str, model_id: UUID) -> Alias:
    """Point the alias at a model; the one it pointed to before is remembered for a way back.

    Raises:
        RequestInvalid: The name has a form that is not allowed.
        ModelNotFound: The caller has no such model.
    """
    if not NAME.fullmatch(name) or as_id(name) is not None:
        raise RequestInvalid(
            f"name: found {name[:200]!r}; allowed are 1 to 100 of a-z 0-9 . _ - "
            "beginning with a letter or digit, and not the form of an id"
        )
    # The row stays until we commit: the model cannot be deleted under the alias.
    model = get_model(session, caller, model_id, lock=True)
    put = insert(Alias).values(project_id=caller.project_id, name=name, model_id=model.id)
    session.execute(
        put.on_conflict_do_update(
            index_elements=["project_id", "name"],
            set_={
                "previous_model_id": Alias.model_id,
                "model_id": put.excluded.model_id,
                "updated_at": func.clock_timestamp(),
            },
            where=Alias.model_id != put.excluded.model_id,
        )
    )
    return get_alias(session, caller, name)


def roll_back(session: Session, caller: Caller, name: str) -> Alias:
    """Point the alias at the model that it pointed to before; once more is the way forth.

    Raises:
        ModelNotFound: There is no alias of this name.
        NothingBefore: It has pointed to no other model, or that one was deleted.
    """
    before = get_alias(session, caller, name).previous_model_id
    if before is None:
        raise NothingBefore(f"name: {name!r} has no model to go back to")
    get_model(session, caller, before, lock=True)  # as in put_alias
    # Whoever moves it at the same moment is not undone in part: both columns, or neither.
    session.execute(
        update(Alias)
        .where(
            Alias.project_id == caller.project_id,
            Alias.name == name,
            Alias.previous_model_id == before,
        )
        .values(
            model_id=Alias.previous_model_id,
            previous_model_id=Alias.model_id,
            updated_at=func.clock_timestamp(),
        )
        .execution_options(synchronize_session=False)
    )
    return get_alias(session, caller, name)


def get_alias(session: Session, caller: Caller, name: str) -> Alias:
    """The caller's alias.

    Raises:
        ModelNotFound: There is none of this name.
    """
    alias = session.scalars(
        select(Alias)
        .where(Alias.project_id == caller.project_id, Alias.name == name)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if alias is None:
        raise ModelNotFound(f"name: no alias is called {name[:200]!r}")
    return alias


def list_aliases(session: Session, caller: Caller) -> list[tuple[Alias, Model]]:
    """The caller's aliases with their models, by name."""
    rows = session.execute(
        select(Alias, Model)
        .join(Model, Model.id == Alias.model_id)
        .where(Alias.project_id == caller.project_id)
        .order_by(Alias.name)
    )
    return [(alias, model) for alias, model in rows]


def delete_alias(session: Session, caller: Caller, name: str) -> None:
    """Remove the name; the model stays.

    Raises:
        ModelNotFound: There is none of this name.
    """
    alias = get_alias(session, caller, name)
    session.execute(
        delete(Alias).where(Alias.project_id == alias.project_id, Alias.name == alias.name)
    )
