"""Snapshots: what a job trained on."""

from __future__ import annotations

from typing import get_args
from uuid import UUID

from fastapi import APIRouter

from api.auth import ReadCaller
from api.dependencies import Cursor, Limit, SessionDep, SettingsDep, StoreDep
from api.errors import responses
from api.guard import GuardedRoute
from api.schemas.snapshots import SnapshotItemOut, SnapshotItemPage, SnapshotOut, SplitCountsOut
from core.datasets.snapshot import Split, get_snapshot, page_items
from core.errors import SnapshotNotFound

router = APIRouter(tags=["snapshots"], route_class=GuardedRoute)


@router.get(
    "/snapshots/{snapshot_id}",
    responses=responses(SnapshotNotFound),
    summary="What a job trained on: counts, classes and splits",
)
def show_snapshot(snapshot_id: UUID, session: SessionDep, caller: ReadCaller) -> SnapshotOut:
    """Jobs name theirs as `snapshot_id`; two jobs with the same one saw the same data."""
    snapshot = get_snapshot(session, caller, snapshot_id)
    images, labels = snapshot.facts["images"], snapshot.facts["labels"]
    splits: dict[Split, SplitCountsOut] = {
        name: SplitCountsOut(images=images.get(name, 0), labels=labels.get(name, 0))
        for name in get_args(Split)
    }
    return SnapshotOut(
        id=snapshot.id,
        dataset_id=snapshot.dataset_id,
        digest=snapshot.digest,
        image_count=snapshot.image_count,
        label_count=snapshot.label_count,
        class_names=snapshot.class_names,
        splits=splits,
        created_at=snapshot.created_at,
    )


@router.get(
    "/snapshots/{snapshot_id}/items",
    responses=responses(SnapshotNotFound),
    summary="The images of a snapshot with label and split, in the order of their sha256",
)
def list_snapshot_items(
    snapshot_id: UUID,
    session: SessionDep,
    caller: ReadCaller,
    store: StoreDep,
    settings: SettingsDep,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> SnapshotItemPage:
    snapshot = get_snapshot(session, caller, snapshot_id)
    items, next_cursor = page_items(
        store, snapshot.digest, cursor=cursor, limit=limit, folder=settings.data_dir / "downloads"
    )
    out = [SnapshotItemOut.model_validate(item) for item in items]
    return SnapshotItemPage(items=out, next_cursor=next_cursor)
