"""Verify, content-address, store and record images; account for every file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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
from core.images.report import IngestReport, ReportLine
from core.storage.store import BlobStore

# A chunk is one transaction: what it recorded stays, whatever happens to the rest.
CHUNK_FILES = 512
CHUNK_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class IncomingFile:
    """A file as it came: a name and bytes, or the reason why there are none."""

    name: str
    data: bytes | None
    problem: tuple[str, str] | None = None


Notice = Callable[[IncomingFile, ReportLine], None]


def unnoticed(_: IncomingFile, __: ReportLine) -> None:
    """Nobody wants to know."""


def always(session: Session, last: IncomingFile) -> None:
    """Nothing has to hold for a chunk to be recorded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ingestion:
    """Where files go, and what the steps share.

    `report` may have counts of files that came before. `fence` is called in the transaction that
    records a chunk, with its last file, and stops everything by raising.
    """

    sessions: sessionmaker[Session]
    store: BlobStore
    dataset_id: UUID
    limits: ImageLimits
    decoders: DecodePool
    report: IngestReport
    fence: Callable[[Session, IncomingFile], None] = always
    notice: Notice = unnoticed
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(max_workers=os.cpu_count())
    )

    def take(self, files: Iterable[IncomingFile]) -> None:
        """Add the files chunk by chunk; to be called once.

        Raises:
            DatasetNotFound: The dataset was deleted meanwhile.
            DecodersUnavailable: The processes that look at the files do not start.
            TooManyImages: The dataset would exceed its limit.
            ProjectFull: The project would exceed a limit.
            StoreUnavailable: The bytes cannot be kept.
        """
        with self.threads:
            for chunk in _chunks(files):
                _add(self, chunk)


def ingest(
    sessions: sessionmaker[Session],
    store: BlobStore,
    dataset_id: UUID,
    files: Iterable[IncomingFile],
    *,
    limits: ImageLimits,
    decoders: DecodePool,
    notice: Notice = unnoticed,
) -> IngestReport:
    """Add images to a dataset whose owner was checked; a bad file is a line and stops nothing.

    Goes chunk by chunk, each in transactions of its own: memory holds the bytes of one chunk,
    and what was recorded before an upload broke off stays, so that sending it again adds the rest.
    `notice` is told what became of each file once it is recorded.

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
            notice=notice,
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


def _chunks(files: Iterable[IncomingFile]) -> Iterator[list[IncomingFile]]:
    chunk: list[IncomingFile] = []
    size = 0
    iterator = iter(files)
    while True:
        try:
            file = next(iterator, None)
        except Exception:
            # What came before the damage, or before the client left, is as good as without it.
            if chunk:
                yield chunk
            raise
        if file is None:
            break
        chunk.append(file)
        size += len(file.data or b"")
        if len(chunk) >= CHUNK_FILES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _add(upload: Ingestion, chunk: Sequence[IncomingFile]) -> None:
    hashes = list(upload.threads.map(_hash, chunk))
    wanted = {sha256 for sha256 in hashes if sha256 is not None}
    with upload.sessions.begin() as session:
        known = known_hashes(session, upload.dataset_id, wanted)
        keys = [image_key(sha256) for sha256 in wanted - known]
        # Before the bytes: whoever dies between them and the row leaves a mark for the sweep.
        blobs.mark(session, keys)
    verdicts = _look_at(upload, known, chunk, hashes)
    results = [_result(verdicts, *pair) for pair in zip(chunk, hashes, strict=True)]
    # Blobs before rows: a row never refers to bytes that are not there.
    upload.store.put_all(_sound(verdicts, chunk, hashes))
    with upload.sessions.begin() as session:
        lines = record(
            session,
            upload.dataset_id,
            upload.report.import_id,
            results,
            start=upload.report.files,
            limits=upload.limits,
        )
        blobs.unmark(session, keys)
        upload.fence(session, chunk[-1])
    upload.report.take(lines)
    for file, line in zip(chunk, lines, strict=True):
        upload.notice(file, line)


def _hash(file: IncomingFile) -> str | None:
    return None if file.data is None else hashlib.sha256(file.data).hexdigest()


def _look_at(
    upload: Ingestion, known: set[str], chunk: Sequence[IncomingFile], hashes: Sequence[str | None]
) -> Mapping[str, Verdict]:
    """What the decoders say of the images that the dataset has not, each looked at once."""
    fresh = {
        sha256: file.data
        for file, sha256 in zip(chunk, hashes, strict=True)
        if file.data is not None and sha256 is not None and sha256 not in known
    }
    return dict(zip(fresh, upload.decoders.inspect(list(fresh.values())), strict=True))


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


def _sound(
    verdicts: Mapping[str, Verdict], chunk: Sequence[IncomingFile], hashes: Sequence[str | None]
) -> dict[str, bytes]:
    """The bytes of the new images by their keys."""
    return {
        image_key(sha256): file.data
        for file, sha256 in zip(chunk, hashes, strict=True)
        if file.data is not None
        and sha256 is not None
        and isinstance(verdicts.get(sha256), ImageInfo)
    }
