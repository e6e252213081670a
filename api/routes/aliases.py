"""Aliases: stable names that applications call."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from api.auth import ReadCaller, WriteCaller
from api.dependencies import SessionDep
from api.errors import responses
from api.guard import GuardedRoute
from api.schemas.models import AliasIn, AliasOut
from api.schemas.text import Text
from core.db.models import Alias
from core.errors import BodyTooLarge, ModelNotFound, NothingBefore
from core.registry import aliases

router = APIRouter(tags=["aliases"], route_class=GuardedRoute)
AliasName = Annotated[Text, Path(max_length=200, examples=["production"])]


@router.get(
    "/aliases", response_model=list[AliasOut], responses=responses(), summary="List aliases"
)
def list_aliases(session: SessionDep, caller: ReadCaller) -> list[Alias]:
    return [alias for alias, _ in aliases.list_aliases(session, caller)]


@router.put(
    "/aliases/{name}",
    response_model=AliasOut,
    responses=responses(ModelNotFound, BodyTooLarge),
    summary="Point a name at a model: promote, roll back",
)
def put_alias(name: AliasName, body: AliasIn, session: SessionDep, caller: WriteCaller) -> Alias:
    return aliases.put_alias(session, caller, name, body.model_id)


@router.post(
    "/aliases/{name}/rollback",
    response_model=AliasOut,
    responses=responses(ModelNotFound, NothingBefore),
    summary="Point a name at the model before",
)
def roll_back_alias(name: AliasName, session: SessionDep, caller: WriteCaller) -> Alias:
    """Exchanges `model_id` and `previous_model_id`: a second call is the way forth."""
    return aliases.roll_back(session, caller, name)


@router.delete(
    "/aliases/{name}",
    status_code=204,
    responses=responses(ModelNotFound),
    summary="Remove a name; the model stays",
)
def delete_alias(name: AliasName, session: SessionDep, caller: WriteCaller) -> None:
    aliases.delete_alias(session, caller, name)
