"""Entry of the child process: load the job, run its stage, write the result."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from uuid import UUID

from sqlalchemy.orm import Session, sessionmaker

from core.config import Settings, process_settings
from core.db.session import make_engine, session_factory
from core.errors import FewlabelsError, JobCancelled, LeaseLost
from core.jobs import outbox
from core.jobs.leases import Claim
from core.jobs.queue import CeleryQueue, make_celery
from core.jobs.service import fail
from core.learning.trainer import Diverged, Stopped
from core.stages import STAGES
from core.stages.context import StageContext, load_facts
from core.stages.outcome import publish
from core.storage.store import open_store
from core.telemetry import bound, configure_logging, logger
from worker.child import EXIT_STOPPED

log = logger(__name__)
OUT_OF_MEMORY = "try a smaller batch_size, image_size or encoder"


def main(job_id: UUID, token: int) -> int:
    """Run the job; the exit code says whether a result was written (0) or it was stopped (3)."""
    settings = process_settings()
    configure_logging(settings)
    sessions = session_factory(make_engine(settings.sqlalchemy_url, pool_size=2))
    outbox.install(sessions, CeleryQueue(make_celery(settings)))
    with bound(job_id=str(job_id)):
        return _run(Claim(job_id, token, 0), sessions, settings)


def _run(held: Claim, sessions: sessionmaker[Session], settings: Settings) -> int:
    stop = _StopRequest()
    try:
        with sessions.begin() as session:
            facts = load_facts(session, held.job_id)
        context = StageContext(
            facts,
            held,
            sessions=sessions,
            store=open_store(settings.store_url),
            settings=settings,
            should_stop=stop,
        )
        model = publish(context, STAGES[facts.stage](context))
        shutil.rmtree(context.work_dir, ignore_errors=True)
        log.info("job succeeded", model_id=str(model.id))
        return 0
    except (Stopped, JobCancelled):
        log.info("job stopped on request")
        return EXIT_STOPPED
    except LeaseLost as error:
        log.warning("another worker holds the job", detail=str(error))
        return EXIT_STOPPED
    except Exception as error:
        code, detail = _said(error)
        log.error("job failed", code=code, exc_info=error)
    with sessions.begin() as session:
        fail(session, held.job_id, held.token, code=code, detail=detail)
    return 0


def _said(error: Exception) -> tuple[str, str]:
    """A code and words for people."""
    if isinstance(error, FewlabelsError):
        return error.code, str(error)
    if isinstance(error, Diverged):
        return "Diverged", str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "OutOfMemory", f"the job needs more memory than there is: {OUT_OF_MEMORY}"
    return "InternalError", f"{type(error).__name__}: {error}; the job's log has more"


class _StopRequest:
    """True once the worker asks to stop, or is gone."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._parent = os.getppid()
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to answer

    def _ask(self, *_: object) -> None:
        self._asked.set()

    def __call__(self) -> bool:
        return self._asked.is_set() or os.getppid() != self._parent


if __name__ == "__main__":
    sys.exit(main(UUID(sys.argv[1]), int(sys.argv[2])))
