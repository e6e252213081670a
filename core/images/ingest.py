"""Verify, content-address, store and record images; account for every file."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session, sessionmaker

from core import blobs
from core.errors import FewlabelsError, ImageInvalid
from core.images import imports
from core.images.decoding import ImageInfo
from core.images.frames import Verdict
from core.images.pool import DecodePool
from core.images.recording import (
    ImageLimits,
    Refused,
    Verified,
    image_key,
    known_hashes,
    record,
    stored_name,
)
from core.images.report import IngestReport
from core.storage.store import BlobStore

# A chunk is one transaction: what it recorded stays, whatever happens to the rest.
CHUNK_FILES = 512
CHUNK_BYTES = 8 * 2**20
# One is examined and one recorded while the next arrives.
CHUNKS_UNDER_WAY = 2


@dataclass(frozen=True, slots=True)
class IncomingFile:
    """A file as it came: a name and bytes, or the reason why there are none."""

    name: str
    data: bytes | None
    problem: tuple[str, str] | None = None


def going_on() -> None:
    """Nothing stops an ingestion from outside."""


def always(session: Session, last: IncomingFile) -> None:
    """Nothing has to hold for a chunk to be recorded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ingestion:
    """Where files go, and what the steps share.

    `report` may have counts of files that came before. `fence` is called in the transaction that
    records a chunk, with its last file, `check` before its bytes are stored; both stop everything
    by raising. They are called in a thread of the ingestion, in the order of the files.
    """

    sessions: sessionmaker[Session]
    store: BlobStore
    dataset_id: UUID
    limits: ImageLimits
    decoders: DecodePool
    report: IngestReport
    fence: Callable[[Session, IncomingFile], None] = always
    check: Callable[[], None] = going_on

    def take(self, files: Iterable[IncomingFile]) -> None:
        """Add the files chunk by chunk; to be called once.

        Raises:
            DatasetNotFound: The dataset was deleted meanwhile.
            DecodersUnavailable: The processes that look at the files do not start.
            TooManyImages: The dataset would exceed its limit.
            ProjectFull: The project would exceed a limit.
            StoreUnavailable: The bytes cannot be kept.
        """
        with ThreadPoolExecutor(1, "examine") as examiner, ThreadPoolExecutor(1, "keep") as keeper:
            under_way: deque[Future[None]] = deque()
            last: Future[None] | None = None
            try:
                for chunk in _chunks(files):
                    if len(under_way) == CHUNKS_UNDER_WAY:
                        under_way.popleft().result()
                    examined = examiner.submit(_examine, self, chunk)
                    last = keeper.submit(_keep, self, examined, last)
                    under_way.append(last)
            finally:
                # Before what `files` raised: this is of files that came earlier.
                for kept in under_way:
                    kept.result()


def ingest(
    sessions: sessionmaker[Session],
    store: BlobStore,
    dataset_id: UUID,
    files: Iterable[IncomingFile],
    *,
    limits: ImageLimits,
    decoders: DecodePool,
) -> IngestReport:
    """Add images to a dataset whose owner was checked; a bad file is a line and stops nothing.

    Goes chunk by chunk, each in transactions of its own: memory holds the bytes of one chunk,
    and what was recorded before an upload broke off stays, so that sending it again adds the rest.

    Raises:
        DatasetNotFound: The dataset was deleted meanwhile.
        DecodersUnavailable: The processes that look at the files do not start.
        TooManyImages: The dataset would exceed its limit.
        ProjectFull: The project would exceed a limit.
        FewlabelsError: Whatever `files` raises, with a word on what was added before.
    """
    import_id = imports.start(sessions, dataset_id)
    report = IngestReport(import_id)
    try:
        Ingestion(
            sessions=sessions,
            store=store,
            dataset_id=dataset_id,
            limits=limits,
            decoders=decoders,
            report=report,
        ).take(files)
    except BaseException as error:
        imports.fail(sessions, import_id, error)
        if isinstance(error, FewlabelsError):
            raise _with_progress(error, report) from error
        raise
    imports.complete(sessions, import_id)
    return report


def _with_progress(error: FewlabelsError, report: IngestReport) -> FewlabelsError:
    kept = f"{report.added} images of this upload were added before" if report.added else ""
    told = f"{error}; {kept or 'nothing was added'} (import {report.import_id})"
    return type(error)(told, problems=error.problems)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Files that are recorded together, and the SHA-256 of each that has bytes."""

    files: list[IncomingFile]
    hashes: list[str | None]


@dataclass(frozen=True, slots=True)
class _Examined:
    """What is to be recorded of a chunk: the marked keys, the bytes under some of them, results."""

    keys: list[str]
    blobs: Mapping[str, bytes]
    files: Sequence[IncomingFile]
    results: list[Verified | Refused]


def _chunks(files: Iterable[IncomingFile]) -> Iterator[_Chunk]:
    chunk, size = _Chunk([], []), 0
    iterator = iter(files)
    while True:
        try:
            file = next(iterator, None)
        except Exception:
            # What came before the damage, or before the client left, is as good as without it.
            if chunk.files:
                yield chunk
            raise
        if file is None:
            break
        chunk.files.append(file)
        chunk.hashes.append(_hash(file))
        size += len(file.data or b"")
        if len(chunk.files) >= CHUNK_FILES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = _Chunk([], []), 0
    if chunk.files:
        yield chunk


def _hash(file: IncomingFile) -> str | None:
    return None if file.data is None else hashlib.sha256(file.data).hexdigest()


def _examine(upload: Ingestion, chunk: _Chunk) -> _Examined:
    """Mark the keys that are new to the dataset, and look at what is to be stored under them."""
    wanted = {sha256 for sha256 in chunk.hashes if sha256 is not None}
    with upload.sessions.begin() as session:
        known = known_hashes(session, upload.dataset_id, wanted)
        keys = [image_key(sha256) for sha256 in wanted - known]
        # Before the bytes: whoever dies between them and the row leaves a mark for the sweep.
        blobs.mark(session, keys)
    fresh = {
        sha256: file.data
        for file, sha256 in zip(chunk.files, chunk.hashes, strict=True)
        if file.data is not None and sha256 is not None and sha256 not in known
    }
    verdicts = dict(zip(fresh, upload.decoders.inspect(list(fresh.values())), strict=True))
    return _Examined(
        keys=keys,
        blobs={
            image_key(sha256): data
            for sha256, data in fresh.items()
            if isinstance(verdicts[sha256], ImageInfo)
        },
        files=chunk.files,
        results=[_result(verdicts, *pair) for pair in zip(chunk.files, chunk.hashes, strict=True)],
    )


def _keep(upload: Ingestion, examined: Future[_Examined], before: Future[None] | None) -> None:
    """Store and record a chunk, once those before it are; an error in one ends all after it."""
    if before is not None:
        before.result()
    upload.check()
    chunk = examined.result()
    # Blobs before rows: a row never refers to bytes that are not there.
    upload.store.put_all(chunk.blobs)
    with upload.sessions.begin() as session:
        lines = record(
            session,
            upload.dataset_id,
            upload.report.import_id,
            chunk.results,
            start=upload.report.files,
            limits=upload.limits,
        )
        blobs.unmark(session, chunk.keys)
        upload.fence(session, chunk.files[-1])
    upload.report.take(lines)


def _result(
    verdicts: Mapping[str, Verdict], file: IncomingFile, sha256: str | None
) -> Verified | Refused:
    name = stored_name(file.name)
    if file.data is None or sha256 is None:
        return Refused(name, *(file.problem or ("Unreadable", "the file could not be read")))
    verdict = verdicts.get(sha256)
    if isinstance(verdict, ImageInvalid):
        return Refused(name, verdict.code, str(verdict))
    return Verified(name, sha256, len(file.data), verdict)
