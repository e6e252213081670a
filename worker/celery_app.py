"""The Celery application of the workers: `celery -A worker.celery_app worker`."""

from __future__ import annotations

from typing import Any

from celery.signals import celeryd_init, setup_logging, worker_ready, worker_shutting_down

from core import tracing
from core.config import process_settings
from core.jobs.queue import JOBS_QUEUES, make_celery
from core.telemetry import configure_logging
from worker.child import prepare_when_idle, shutting_down

app = make_celery(process_settings(), listens=True)
app.conf.imports = ("worker.tasks",)


@setup_logging.connect
def _one_log_format(**_: Any) -> None:
    configure_logging(process_settings())


@celeryd_init.connect
def _trace(sender: str, **_: Any) -> None:
    # The sweeping process traces nothing, and forks its clock: not with a thread in it.
    if not sender.startswith("beat@"):
        tracing.start(process_settings(), "fewlabels-worker")


@worker_ready.connect
def _be_ready(sender: Any, **_: Any) -> None:
    if set(JOBS_QUEUES.values()) & set(sender.app.amqp.queues.consume_from):
        prepare_when_idle(process_settings())


@worker_shutting_down.connect
def _hand_jobs_back(**_: Any) -> None:
    shutting_down.set()
