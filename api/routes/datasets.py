"""Datasets."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from api.auth import ReadCaller, WriteCaller
from api.dependencies import Cursor, Limit, SessionDep
from api.errors import responses
from api.guard import GuardedRoute
from api.schemas.datasets import DatasetDetailOut, DatasetIn, DatasetOut, DatasetPage
from api.schemas.text import Text
from core.datasets import service
from core.db.models import Dataset
from core.errors import BodyTooLarge, DatasetNotFound, InUse, NameTaken

router = APIRouter(tags=["datasets"], route_class=GuardedRoute)


@router.post(
    "/datasets",
    status_code=201,
    response_model=DatasetOut,
    responses=responses(NameTaken, BodyTooLarge),
    summary="Create a dataset",
)
def create_dataset(
    body: DatasetIn, session: SessionDep, caller: WriteCaller, response: Response
) -> Dataset:
    dataset = service.create_dataset(session, caller, **body.model_dump())
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return dataset


@router.get("/datasets", responses=responses(), summary="List datasets, newest first")
def list_datasets(
    session: SessionDep,
    caller: ReadCaller,
    name: Annotated[Text | None, Query(description="Only the dataset of this name.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> DatasetPage:
    page = service.list_datasets(session, caller, name=name, cursor=cursor, limit=limit)
    items = [DatasetOut.model_validate(item) for item in page.items]
    return DatasetPage(items=items, next_cursor=page.next_cursor)


@router.get(
    "/datasets/{dataset_id}",
    response_model=DatasetDetailOut,
    responses=responses(DatasetNotFound),
    summary="A dataset with its counts",
)
def get_dataset(
    dataset_id: UUID, session: SessionDep, caller: ReadCaller
) -> service.DatasetSummary:
    return service.summarise(session, service.get_dataset(session, caller, dataset_id))


@router.delete(
    "/datasets/{dataset_id}",
    status_code=204,
    responses=responses(DatasetNotFound, InUse),
    summary="Delete a dataset; its jobs and models stay",
)
def delete_dataset(dataset_id: UUID, session: SessionDep, caller: WriteCaller) -> None:
    service.delete_dataset(session, caller, dataset_id)
