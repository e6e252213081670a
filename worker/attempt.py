"""What a job's process does: load the job, run its stage, write the result."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
from functools import partial
from uuid import UUID

from sqlalchemy.orm import Session, sessionmaker

from core import tracing
from core.config import Settings, process_settings
from core.db.session import make_engine, session_factory
from core.errors import JobCancelled, LeaseLost, StoreUnavailable
from core.jobs import outbox
from core.jobs.leases import Claim
from core.jobs.origin import Origin
from core.jobs.outages import DATABASE_AWAY, outlast
from core.jobs.queue import CeleryQueue, make_celery
from core.jobs.service import fail
from core.learning.memory import keep_freed_memory
from core.learning.trainer import Stopped
from core.stages import STAGES
from core.stages.context import StageContext
from core.stages.facts import JobFacts, load_facts
from core.stages.mirror import CheckpointMirror
from core.stages.report import conclude
from core.storage.store import open_store
from core.telemetry import bound, configure_logging, logger
from worker.child import EXIT_AWAY, EXIT_STOPPED
from worker.failure import describe, disk_is_full, named_images
from worker.memory import go_first

log = logger(__name__)
WATCH_SECONDS = 0.5
AWAY = (StoreUnavailable, *DATABASE_AWAY)


def attempt(job_id: UUID, token: int, worker_pid: int, origin: Origin) -> int:
    """Run the job of the worker with this process id.

    Returns:
        The exit code: 0 when an end was written, 3 when it was stopped, 4 when the database or the
        blob store was away for too long, so that the job should be tried again.
    """
    go_first()
    settings = process_settings()
    stop = StopRequest(worker_pid)
    # Soon enough that the process is gone before another worker may take the job.
    stop.watch_worker(grace_seconds=min(settings.cancel_grace_seconds, settings.lease_seconds / 3))
    configure_logging(settings)
    keep_freed_memory()
    sessions = session_factory(make_engine(settings.sqlalchemy_url, pool_size=2))
    outbox.install(sessions, CeleryQueue(make_celery(settings)))
    tracing.start(settings, "fewlabels-job")
    # Whoever reads this job's log cannot mend the collector; the worker's log says it, too.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    with bound(**origin.log_ids()), origin.span("job process") as process:
        code = _run(Claim(job_id, token, 0), sessions, settings, stop)
        process.note(exit_code=code)
        # Sent because the job has ended; while the interpreter winds up it would count as a death.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return code


def _run(
    held: Claim, sessions: sessionmaker[Session], settings: Settings, stop: StopRequest
) -> int:
    def fail_job(error: Exception) -> None:
        code, detail = describe(error, data_dir=settings.data_dir)
        with sessions.begin() as session:
            detail += named_images(session, held.job_id, error)
            fail(session, held.job_id, held.token, code=code, detail=detail)

    try:
        _make_model(held, sessions, settings, stop)
        return 0
    except (Stopped, JobCancelled):
        log.info("job stopped on request")
        return EXIT_STOPPED
    except LeaseLost as error:
        log.warning("the job is not held any more", detail=str(error))
        return EXIT_STOPPED
    except Exception as error:
        if isinstance(error, AWAY) and not disk_is_full(error):
            log.error("a server is away; the job will be tried again", exc_info=error)
            return EXIT_AWAY
        log.error("job failed", exc_info=error)
        failure = error
    try:
        outlast(partial(fail_job, failure), seconds=settings.lease_seconds, give_up=stop)
    except DATABASE_AWAY as error:
        log.error("the database is away; the job will be tried again", exc_info=error)
        return EXIT_AWAY
    return 0


def _make_model(
    held: Claim, sessions: sessionmaker[Session], settings: Settings, stop: StopRequest
) -> None:
    def load() -> JobFacts:
        with sessions.begin() as session:
            return load_facts(session, held.job_id)

    facts = outlast(load, seconds=settings.lease_seconds, give_up=stop)
    context = StageContext(
        facts,
        held,
        sessions=sessions,
        store=open_store(settings.store_url),
        settings=settings,
        should_stop=stop,
    )
    mirror = CheckpointMirror(held, context.checkpoint_dir, sessions=sessions, store=context.store)
    with tracing.span("restore checkpoints"):
        outlast(mirror.restore, seconds=settings.lease_seconds, give_up=stop)
    with mirror.copying():
        with tracing.span(f"stage {facts.stage}"), context.phases:
            result = STAGES[facts.stage](context)
        with tracing.span("store result"), context.phases:
            model_id = conclude(context, result)
    _forget(mirror)
    shutil.rmtree(context.work_dir, ignore_errors=True)
    log.info("job succeeded", model_id=model_id and str(model_id))


def _forget(mirror: CheckpointMirror) -> None:
    try:
        mirror.forget()
    except (*AWAY, OSError) as error:
        # The job has ended well whatever becomes of them.
        log.warning("checkpoints were not deleted; the sweep will", error=str(error))


class StopRequest:
    """True once the worker asks to stop, or is gone.

    Args:
        worker_pid: The parent process as the worker named it. Asking for it here would be too
            late for a worker that died while the libraries were being loaded.
    """

    def __init__(self, worker_pid: int) -> None:
        self._asked = False
        self._worker_pid = worker_pid
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to answer

    def __call__(self) -> bool:
        return self._asked or self._orphaned()

    def watch_worker(self, *, grace_seconds: float) -> None:
        """From now on, end this process and all it started when the worker is gone.

        It may end by itself within the time of grace, which saves a checkpoint.
        """

        def watch() -> None:
            while not self._orphaned():
                time.sleep(WATCH_SECONDS)
            time.sleep(grace_seconds)
            if os.getpgrp() == os.getpid():
                os.killpg(os.getpid(), signal.SIGKILL)
            os._exit(EXIT_STOPPED)

        threading.Thread(target=watch, name="worker watch", daemon=True).start()

    def _orphaned(self) -> bool:
        return os.getppid() != self._worker_pid

    def _ask(self, *_: object) -> None:
        self._asked = True  # not an Event, whose lock is not safe to take in a signal handler
