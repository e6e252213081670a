"""One order to import, carried out: claimed, renewed, recorded chunk by chunk, ended once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.datasets.folders import label_by_folder
from core.datasets.service import get_dataset
from core.db.imports import Import
from core.db.models import Dataset
from core.direct import orders, uploads
from core.direct.orders import Held
from core.direct.sources import files_of
from core.direct.stores import Place
from core.errors import FewlabelsError, LabelsInvalid, LeaseLost, StoreUnavailable, Unavailable
from core.images.incoming import image_limits
from core.images.ingest import IncomingFile, Ingestion
from core.images.pool import DecodePool
from core.images.report import IngestReport
from core.jobs.outages import DATABASE_AWAY, outlast
from core.telemetry import carried, logger

log = logger(__name__)
RENEWALS = 4  # in the time of a lease
SETTLE_SECONDS = 60.0


class _Stopped(Exception):
    """This process shuts down; another one goes on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What an import needs."""

    sessions: sessionmaker[Session]
    place: Place
    stop: Callable[[], bool]


def run(work: Work, import_id: UUID) -> None:
    """Carry out the order unless somebody else does, or it has ended."""
    with work.sessions.begin() as session:
        held = orders.claim(session, import_id, lease_seconds=work.place.settings.lease_seconds)
    if held is None:
        log.info("nothing to do: the import is not queued")
        return
    log.info("import started", token=held.token)
    with _renewed(work, held) as lost:
        end = _outcome(work, held, lost)
        try:
            outlast(lambda: _write(work, held, end), seconds=SETTLE_SECONDS, give_up=work.stop)
        except LeaseLost:
            log.warning("the import is somebody else's now, or its dataset is gone")
        except DATABASE_AWAY as error:
            log.error("the end was not written; the sweep will see to it", error=str(error))
    _clear(work)


End = Callable[[Session, Held], None]


def _outcome(work: Work, held: Held, lost: threading.Event) -> End:
    """Add what the order names; what is to be written of how that ended."""
    try:
        _add(work, held, lost)
    except _Stopped:
        return lambda session, held: orders.give_back(session, held, reason=None)
    except LeaseLost as error:
        log.warning("import stopped", reason=str(error))
        return lambda session, held: orders.renew(session, held, lease_seconds=1)
    except Unavailable as error:
        return _again(error)
    except FewlabelsError as error:
        return _failed(error.code, str(error))
    except (OSError, SQLAlchemyError) as error:
        log.warning("import interrupted", exc_info=error)
        return _again(StoreUnavailable(f"the server could not go on ({type(error).__name__})"))
    except Exception as error:
        log.error("unexpected error in an import", exc_info=error)
        return _failed("InternalError", "an unexpected error, which is our fault; see the log")
    return orders.end


def _again(reason: FewlabelsError) -> End:
    log.warning("import to be tried again", code=reason.code, detail=str(reason))
    return lambda session, held: orders.give_back(session, held, reason=reason)


def _failed(code: str, detail: str) -> End:
    log.info("import failed", code=code, detail=detail)
    return lambda session, held: orders.end(session, held, (code, detail))


def _add(work: Work, held: Held, lost: threading.Event) -> None:
    with work.sessions.begin() as session:
        row = session.scalars(select(Import).where(Import.id == held.import_id)).one()
        report = IngestReport(held.import_id, row.added, row.duplicates, row.rejected)

    def fence(session: Session, last: IncomingFile) -> None:
        orders.note(session, held, last.name)

    def check() -> None:
        if work.stop():
            raise _Stopped
        if lost.is_set():
            raise LeaseLost("the lease of the import is lost")

    with closing(DecodePool.from_settings(work.place.settings)) as decoders:
        files = files_of(held, work.place, done=report.files)
        Ingestion(
            sessions=work.sessions,
            store=work.place.blobs,
            dataset_id=held.dataset_id,
            limits=image_limits(work.place.settings),
            decoders=decoders,
            report=report,
            fence=fence,
            check=check,
        ).take(_checked(files, check))
    _label(work, held, report)


def _label(work: Work, held: Held, report: IngestReport) -> None:
    """Set the labels, where some were asked for: once, since whoever dies here does it again."""
    settings = work.place.settings
    with work.sessions.begin() as session:
        row = session.get(Dataset, held.dataset_id)
        caller = orders.labelling_caller(held, row.project_id) if row else None
        if caller is None:
            return
        dataset = get_dataset(session, caller, held.dataset_id, lock=True)
        try:
            label_by_folder(
                session, caller, dataset, held.import_id, max_classes=settings.max_classes
            )
        except LabelsInvalid as error:
            kept = f"{report.added} images of this import were added, no label was set"
            raise LabelsInvalid(f"{error}; {kept}", problems=error.problems) from error
        orders.renew(session, held, lease_seconds=settings.lease_seconds)


def _checked(files: Iterator[IncomingFile], check: Callable[[], None]) -> Iterator[IncomingFile]:
    for file in files:
        check()
        yield file


def _write(work: Work, held: Held, end: End) -> None:
    with work.sessions.begin() as session:
        end(session, held)


@contextmanager
def _renewed(work: Work, held: Held) -> Iterator[threading.Event]:
    """The lease is kept in a thread of its own; the event says that it is lost."""
    done, lost = threading.Event(), threading.Event()
    seconds = work.place.settings.lease_seconds

    def keep() -> None:
        while not done.wait(seconds / RENEWALS):
            try:
                with work.sessions.begin() as session:
                    orders.renew(session, held, lease_seconds=seconds)
            except LeaseLost:
                lost.set()
                return
            except DATABASE_AWAY as error:
                log.warning("the lease was not renewed", error=str(error))

    thread = threading.Thread(target=carried(keep), name="import lease", daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        done.set()
        thread.join()


def _clear(work: Work) -> None:
    try:
        uploads.sweep(work.sessions, work.place)
    except (StoreUnavailable, *DATABASE_AWAY) as error:
        log.warning("the archive was not removed; the sweep will", error=str(error))
