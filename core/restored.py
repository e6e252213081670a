"""Whether what the rows refer to is in the blob store: asked after a restore."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlalchemy import collate, select
from sqlalchemy.orm import Session, sessionmaker

from core.blobs import IMAGES, MODELS, SNAPSHOTS, used_files
from core.db.models import Image, Model, Snapshot
from core.storage.store import BlobStore

PART = 10_000


def missing(sessions: sessionmaker[Session], store: BlobStore) -> Iterator[str]:
    """All keys that a row refers to and the store has no bytes for.

    Rows and keys come in the same order, so that millions of them take little memory. Whoever
    uploads meanwhile does no harm: bytes are there before their row. Checkpoints are not asked
    for: a job begins anew when its own is gone.

    Raises:
        StoreUnavailable: The store does not answer.
    """
    for namespace in (IMAGES, SNAPSHOTS, MODELS):
        with sessions() as session:
            wanted = _digests(session, namespace)
            for digest in _absent(wanted, store.keys(namespace), prefix=f"{namespace}/"):
                yield f"{namespace}/{digest}"


def _digests(session: Session, namespace: str) -> Iterable[str]:
    if namespace == MODELS:
        return sorted(used_files(session))
    if namespace == SNAPSHOTS:
        learned = select(Model.manifest["snapshot_sha256"].astext)
        return sorted(session.scalars(select(Snapshot.digest).union(learned)))
    ordered = select(Image.sha256).group_by(Image.sha256).order_by(collate(Image.sha256, "C"))
    return session.scalars(ordered.execution_options(yield_per=PART))


def _absent(wanted: Iterable[str], keys: Iterator[str], *, prefix: str) -> Iterator[str]:
    found = next(keys, "")
    for digest in wanted:
        while found and found.removeprefix(prefix) < digest:
            found = next(keys, "")
        if found.removeprefix(prefix) != digest:
            yield digest
