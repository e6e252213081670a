"""Snapshots: a dataset frozen as a list of (sha256, label, split) with its hash."""

from __future__ import annotations

import hashlib
import json
import re
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, cast
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core import blobs
from core.auth import Caller
from core.db.labelling import ImageSplit
from core.db.models import Dataset, Image, Label, Snapshot
from core.db.table import Json
from core.errors import RequestInvalid, SnapshotNotFound
from core.storage.store import BlobStore

Split = Literal["train", "validation", "test"]
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SnapshotItem:
    """One image of a snapshot."""

    sha256: str
    label: str | None
    split: Split


def split_of(sha256: str, *, validation_fraction: float, test_fraction: float) -> Split:
    """The split of an image by its content alone, so that it never moves.

    The hash of the hash decides: users may have chosen images by their plain hash.
    """
    digest = hashlib.sha256(f"fewlabels-split:{sha256}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test_fraction:
        return "test"
    if position < test_fraction + validation_fraction:
        return "validation"
    return "train"


def freeze(session: Session, store: BlobStore, dataset: Dataset) -> Snapshot:
    """The snapshot of the dataset as it is now; unchanged data gives the same one."""
    found = session.execute(
        select(Image.sha256, Image.greyscale, Image.width, Image.height)
        .add_columns(Label.class_name, ImageSplit.split)
        .outerjoin(Label, Label.image_id == Image.id)
        .outerjoin(ImageSplit, ImageSplit.image_id == Image.id)
        .where(Image.dataset_id == dataset.id)
    )
    rows = sorted(found, key=lambda row: row.sha256)
    items = [
        SnapshotItem(row.sha256, row.class_name, _split(dataset, row.sha256, row.split))
        for row in rows
    ]
    trained = [row for row, item in zip(rows, items, strict=True) if item.split != "test"]
    content = _serialise(items)
    digest = hashlib.sha256(content).hexdigest()
    blobs.unmark(session, [snapshot_key(digest)])
    store.put(snapshot_key(digest), content)
    values = {
        "dataset_id": dataset.id,
        "digest": digest,
        "image_count": len(items),
        "label_count": sum(item.label is not None for item in items),
        "class_names": sorted({item.label for item in items if item.label is not None}),
        "facts": {
            # What is decided from these must not depend on images that nothing may learn from.
            "greyscale": all(row.greyscale for row in trained),
            "median_short_side": int(
                statistics.median([min(row.width, row.height) for row in trained] or [0])
            ),
            **_counts(items),
        },
    }
    session.execute(insert(Snapshot).values(values).on_conflict_do_nothing())
    return session.scalars(
        select(Snapshot).where(Snapshot.dataset_id == dataset.id, Snapshot.digest == digest)
    ).one()


def _split(dataset: Dataset, sha256: str, given: str | None) -> Split:
    if given is not None:
        return cast(Split, given)
    return split_of(
        sha256,
        validation_fraction=dataset.validation_fraction,
        test_fraction=dataset.test_fraction,
    )


def _counts(items: list[SnapshotItem]) -> Json:
    trained = Counter(i.label for i in items if i.label is not None and i.split == "train")
    return {
        "images": dict(Counter(item.split for item in items)),
        "labels": dict(Counter(item.split for item in items if item.label is not None)),
        "train_labels_per_class": dict(sorted(trained.items())),
    }


def get_snapshot(session: Session, caller: Caller, snapshot_id: UUID) -> Snapshot:
    """The snapshot of a dataset of the caller.

    Raises:
        SnapshotNotFound: There is none, or it is another project's.
    """
    snapshot = session.scalars(
        select(Snapshot)
        .join(Dataset, Dataset.id == Snapshot.dataset_id)
        .where(Snapshot.id == snapshot_id, Dataset.project_id == caller.project_id)
    ).one_or_none()
    if snapshot is None:
        raise SnapshotNotFound(f"snapshot_id: no snapshot has the id {snapshot_id}")
    return snapshot


def snapshot_of_job(session: Session, snapshot_id: UUID) -> Snapshot:
    """A snapshot by id, for code that already holds a job of the owner."""
    return session.scalars(select(Snapshot).where(Snapshot.id == snapshot_id)).one()


def load_items(store: BlobStore, digest: str) -> list[SnapshotItem]:
    """The frozen list, in the order of the hashes."""
    # Not splitlines: class names may hold what Unicode counts as line ends.
    lines = store.get(snapshot_key(digest)).decode().split("\n")
    return [SnapshotItem(*json.loads(line)) for line in lines if line]


def page_items(
    store: BlobStore, digest: str, *, cursor: str | None, limit: int, folder: Path
) -> tuple[list[SnapshotItem], str | None]:
    """A page of the frozen list, and the cursor of the next one: the last sha256.

    Memory holds the page only; the list lies in `folder` while it is read.

    Raises:
        RequestInvalid: The cursor is none of ours.
    """
    if cursor is not None and not SHA256.fullmatch(cursor):
        raise RequestInvalid(
            f"cursor: found {cursor[:80]!r}; pass the next_cursor of the previous page unchanged"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        path = Path(name) / "items"
        store.fetch(snapshot_key(digest), path)
        items = list(islice(_items_after(path, cursor), limit + 1))
    if len(items) <= limit:
        return items, None
    return items[:limit], items[limit - 1].sha256


def _items_after(path: Path, sha256: str | None) -> Iterator[SnapshotItem]:
    # A line begins with the hash, and lines are in the order of it: those before are not parsed.
    passed = f'["{sha256 or ""}"'.encode()
    with path.open("rb") as lines:
        for line in lines:
            if sha256 is None or line[: len(passed)] > passed:
                yield SnapshotItem(*json.loads(line))


def snapshot_key(digest: str) -> str:
    """Where the list lies in the blob store."""
    return f"snapshots/{digest}"


def _serialise(items: list[SnapshotItem]) -> bytes:
    lines = (json.dumps([i.sha256, i.label, i.split], ensure_ascii=False) for i in items)
    return "\n".join(lines).encode()
