"""Where an order to import finds its files: an archive in the store, or a bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from core.auth import Caller
from core.config import Settings
from core.datasets.service import get_dataset
from core.db.imports import Import
from core.direct import orders
from core.direct.orders import Held
from core.direct.stores import Place
from core.errors import BlobNotFound, ChecksumWrong, TooManyImages
from core.images.archives import unsafe_name
from core.images.archives.entries import is_junk
from core.images.incoming import incoming_from_archive
from core.images.ingest import IncomingFile
from core.storage.s3.buckets import ForeignBucket, Listed
from core.storage.store import BlobStore

READERS = 8  # objects in memory and on their way
HASHED_BYTES = 2**20


def order_bucket(
    session: Session,
    caller: Caller,
    dataset_id: UUID,
    *,
    bucket: str,
    prefix: str,
    by_folder: bool,
    place: Place,
) -> Import:
    """Order the import of what lies below a prefix of a bucket; `by_folder` labels it, too.

    Raises:
        DatasetNotFound: There is none, or it is another project's.
        NoObjectStore: Blobs lie in a folder.
        BucketNotAllowed: The settings do not name the bucket.
    """
    dataset = get_dataset(session, caller, dataset_id, lock=True)
    place.import_bucket(bucket)
    source: dict[str, Any] = {"bucket": bucket, "prefix": prefix}
    if by_folder:
        source["labelled_by"] = orders.labelled_by(caller)
    return orders.place(session, dataset.id, source, max_attempts=place.settings.job_max_attempts)


def files_of(held: Held, place: Place, *, done: int) -> Iterator[IncomingFile]:
    """The files of an order's source but those that are recorded, of which there are `done`.

    Raises:
        BlobNotFound: The archive is gone.
        ChecksumWrong: It is not the one that was announced.
        ArchiveInvalid, ArchiveTooLarge: As of an archive in a request.
        BucketNotAllowed: The settings have changed.
        TooManyImages: The bucket has more files below the prefix than a dataset may hold.
        StoreUnavailable: The object store does not answer or refuses.
    """
    store, settings = place.blobs, place.settings
    if "bucket" in held.source:
        bucket = place.import_bucket(held.source["bucket"])
        yield from _objects(bucket, held.source["prefix"], held.last_file, settings, done=done)
        return
    if held.source["sha256"] is not None:
        _require_checksum(store, held.source["key"], held.source["sha256"])
    with store.open(held.source["key"]) as stream:
        files = incoming_from_archive(stream, settings, scratch=settings.data_dir / "uploads")
        # An archive has its files in the same order each time, some perhaps under one name.
        yield from islice(files, done, None)


def _require_checksum(store: BlobStore, key: str, announced: str) -> None:
    found = hashlib.sha256()
    with store.open(key) as stream:
        while piece := stream.read(HASHED_BYTES):
            found.update(piece)
    if found.hexdigest() != announced:
        raise ChecksumWrong(
            f"sha256: the archive was announced with {announced}, what arrived has "
            f"{found.hexdigest()}"
        )


def _objects(
    bucket: ForeignBucket, prefix: str, last: str | None, settings: Settings, *, done: int
) -> Iterator[IncomingFile]:
    after = None if last is None else prefix + last
    wanted = (
        item
        for item in bucket.listed(prefix, after=after)
        if not is_junk(item.name.removeprefix(prefix))
    )
    most = settings.max_images_per_dataset

    def read(item: Listed) -> IncomingFile:
        return _read(bucket, item, item.name.removeprefix(prefix), settings.max_image_bytes)

    with ThreadPoolExecutor(READERS) as threads:
        while part := list(islice(wanted, READERS)):
            done += len(part)
            if done > most:
                raise TooManyImages(
                    f"source.prefix: the bucket has more than {most} files below {prefix!r}, "
                    "which is the most that a dataset may hold"
                )
            yield from threads.map(read, part)


def _read(bucket: ForeignBucket, item: Listed, name: str, max_bytes: int) -> IncomingFile:
    if refused := unsafe_name(name):
        return IncomingFile(name, None, (refused.code, refused.detail))
    if item.size > max_bytes:
        detail = f"{item.size} bytes; at most {max_bytes} are allowed"
        return IncomingFile(name, None, ("ImageTooLarge", detail))
    try:
        return IncomingFile(name, bucket.read(item.name))
    except BlobNotFound:
        return IncomingFile(name, None, ("Unreadable", "it is no longer in the bucket"))
