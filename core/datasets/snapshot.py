"""Snapshots: a dataset frozen as a list of (sha256, label, split) with its hash."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core import blobs
from core.db.models import Dataset, Image, Label, Snapshot
from core.db.table import Json
from core.storage.store import BlobStore

Split = Literal["train", "validation", "test"]


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
    rows = session.execute(
        select(Image.sha256, Label.class_name, Image.greyscale, Image.width, Image.height)
        .outerjoin(Label, Label.image_id == Image.id)
        .where(Image.dataset_id == dataset.id)
    ).all()
    items = sorted(
        (SnapshotItem(row.sha256, row.class_name, _split(dataset, row.sha256)) for row in rows),
        key=lambda item: item.sha256,
    )
    trained = [row for row in rows if _split(dataset, row.sha256) != "test"]
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


def _split(dataset: Dataset, sha256: str) -> Split:
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


def get_snapshot(session: Session, snapshot_id: UUID) -> Snapshot:
    """A snapshot by id, for code that already holds a job of the owner."""
    return session.scalars(select(Snapshot).where(Snapshot.id == snapshot_id)).one()


def load_items(store: BlobStore, digest: str) -> list[SnapshotItem]:
    """The frozen list, in the order of the hashes."""
    # Not splitlines: class names may hold what Unicode counts as line ends.
    lines = store.get(snapshot_key(digest)).decode().split("\n")
    return [SnapshotItem(*json.loads(line)) for line in lines if line]


def snapshot_key(digest: str) -> str:
    """Where the list lies in the blob store."""
    return f"snapshots/{digest}"


def _serialise(items: list[SnapshotItem]) -> bytes:
    lines = (json.dumps([i.sha256, i.label, i.split], ensure_ascii=False) for i in items)
    return "\n".join(lines).encode()
