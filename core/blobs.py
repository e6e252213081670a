"""Which blobs the rows refer to: marks on those that perhaps none does, and their sweep.

An upload marks the keys it is about to write and unmarks them with the rows it records; a deletion
marks the keys of the rows it removes. So whoever dies in between, every image without a row has a
mark; what else lies in the store without a row, `fewlabels gc` finds and marks. The sweep holds the
mark's row while it deletes the bytes: whoever writes the same ones marks or unmarks the key first,
waits for the sweep thereby, and writes them anew. From then on there is the time of grace to record
them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import timedelta
from itertools import islice

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from core.db.arrays import rows_of
from core.db.imports import LooseBlob
from core.db.models import Image, Model, Snapshot
from core.db.scheduling import JobCheckpoint
from core.storage.store import BlobStore

PART = 500
CHECKPOINTS = "checkpoints"
IMAGES, SNAPSHOTS, MODELS, _ = NAMESPACES = ("images", "snapshots", "models", CHECKPOINTS)


def mark(session: Session, keys: Iterable[str]) -> None:
    """These keys may come to have bytes without a row; the time of grace starts now."""
    given = rows_of(key=("text", sorted(keys)))
    statement = insert(LooseBlob).from_select(["key"], select(given.c.key))
    again = {"since": func.clock_timestamp()}
    session.execute(statement.on_conflict_do_update(index_elements=["key"], set_=again))


def unmark(session: Session, keys: Iterable[str]) -> None:
    """Rows refer to these keys now, or soon will."""
    given = rows_of(key=("text", sorted(keys)))
    # Locked in the order of the keys, as marking does: uploads that share images run at once.
    held = select(LooseBlob.key).join(given, given.c.key == LooseBlob.key)
    held = held.order_by(LooseBlob.key).with_for_update(of=LooseBlob)
    session.execute(delete(LooseBlob).where(LooseBlob.key.in_(held)))


def nothing(_: str) -> Iterable[str]:
    """Nothing was made from an image."""
    return ()


def sweep(
    sessions: sessionmaker[Session],
    store: BlobStore,
    *,
    grace: timedelta,
    made_from: Callable[[str], Iterable[str]] = nothing,
) -> int:
    """Delete the bytes of some marked keys without a row whose time of grace is over.

    At most a few hundred, so that a sweep takes seconds; any number of processes may sweep.
    `made_from` names the keys that go with an image of this SHA-256.

    Returns:
        How many blobs were deleted.

    Raises:
        StoreUnavailable: Nothing lost its mark.
    """
    due = (
        select(LooseBlob.key)
        .where(LooseBlob.since < func.clock_timestamp() - grace)
        .order_by(LooseBlob.since)
        .limit(PART)
        .with_for_update(skip_locked=True)
    )
    with sessions.begin() as session:
        keys = list(session.scalars(due))
        loose = unused(session, keys)
        for key in loose:
            namespace, _, digest = key.partition("/")
            for made in made_from(digest) if namespace == IMAGES else ():
                store.delete(made)
            store.delete(key)
        unmark(session, keys)
    return len(loose)


def discard(sessions: sessionmaker[Session], store: BlobStore, keys: Collection[str]) -> None:
    """Delete marked bytes without waiting: nobody but the caller ever writes the same ones.

    What somebody else sweeps right now, or what a row refers to, is left.

    Raises:
        StoreUnavailable: They keep their marks, so that the sweep deletes them.
    """
    held = select(LooseBlob.key).where(LooseBlob.key.in_(keys)).with_for_update(skip_locked=True)
    with sessions.begin() as session:
        marked = list(session.scalars(held))
        for key in unused(session, marked):
            store.delete(key)
        unmark(session, marked)


def orphans(sessions: sessionmaker[Session], store: BlobStore) -> Iterator[str]:
    """All keys of the store that no row refers to, marked or not."""
    for namespace in NAMESPACES:
        keys = store.keys(namespace)
        while part := list(islice(keys, PART)):
            with sessions.begin() as session:
                found = unused(session, part)
            yield from found


def mark_orphans(sessions: sessionmaker[Session], keys: Collection[str]) -> int:
    """Give keys without a row their time of grace; those that have a mark keep it.

    Returns:
        How many are marked newly.
    """
    marked = 0
    waiting = iter(sorted(keys))
    while part := list(islice(waiting, PART)):
        with sessions.begin() as session:
            rows = [{"key": key} for key in unused(session, part)]
            if rows:
                statement = insert(LooseBlob).values(rows).on_conflict_do_nothing()
                marked += len(session.scalars(statement.returning(LooseBlob.key)).all())
    return marked


def unused(session: Session, keys: Collection[str]) -> list[str]:
    """Those of the keys that no row refers to."""
    digests: dict[str, set[str]] = {namespace: set() for namespace in NAMESPACES}
    for key in keys:
        namespace, _, digest = key.partition("/")
        digests[namespace].add(digest)
    used = {
        IMAGES: _used_images(session, digests[IMAGES]),
        SNAPSHOTS: _used_snapshots(session, digests[SNAPSHOTS]),
        MODELS: used_files(session) if digests[MODELS] else set(),
        CHECKPOINTS: _used_checkpoints(session, digests[CHECKPOINTS]),
    }
    return [key for key in keys if key.partition("/")[2] not in used[key.partition("/")[0]]]


def _used_images(session: Session, digests: set[str]) -> set[str]:
    return set(session.scalars(select(Image.sha256).where(Image.sha256.in_(digests)).distinct()))


def _used_snapshots(session: Session, digests: set[str]) -> set[str]:
    # A model says what it was trained on even when the dataset is gone.
    learned = Model.manifest["snapshot_sha256"].astext
    rows = select(Snapshot.digest).where(Snapshot.digest.in_(digests))
    return set(session.scalars(rows.union(select(learned).where(learned.in_(digests)))))


def _used_checkpoints(session: Session, digests: set[str]) -> set[str]:
    rows = select(JobCheckpoint.sha256).where(JobCheckpoint.sha256.in_(digests))
    return set(session.scalars(rows))


def used_files(session: Session) -> set[str]:
    """Digests of all files of models, their manifests among them."""
    used: set[str] = set()
    for manifest, digest in session.execute(select(Model.manifest, Model.manifest_sha256)):
        used.add(digest)
        used.update(entry["sha256"] for entry in manifest["files"].values())
    return used
