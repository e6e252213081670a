"""Celery as the carrier of hints: a message is an id and nothing else."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from celery import Celery
from kombu.exceptions import ChannelError, OperationalError

from core.config import Settings, required

JOBS_QUEUES = {"cpu": "jobs-cpu", "gpu": "jobs-gpu"}
IMPORTS_QUEUE = "imports"
SWEEPS_QUEUE = "sweeps"
# A broker that takes connections and says nothing (frozen, cut off) must not hold up requests:
# each step of sending may take so long, and after a failure none is tried for a while, since the
# sweep sends what is missing. Who waits for messages bears the silence between two of them.
SEND_SECONDS, PAUSE_SECONDS = 1.0, 5.0
LISTENING = {"socket_timeout": 10, "retry_on_timeout": True}
RUN_JOB = "worker.tasks.run_job"
RUN_IMPORT = "worker.tasks.run_import"
SWEEP = "worker.tasks.sweep"


def make_celery(settings: Settings, *, listens: bool = False) -> Celery:
    """The Celery application of API and workers.

    Messages are acknowledged as they arrive: the database, not the broker, knows what is left
    to do, so no visibility timeout can run a long job twice.

    Args:
        settings: Where the broker is.
        listens: Whether it waits for messages; others give up soon on a broker that is silent.
    """
    app = Celery("fewlabels", broker=required(settings.broker_url, "FEWLABELS_BROKER_URL"))
    app.conf.update(_configuration(settings))
    if listens:
        app.conf.broker_transport_options.update(LISTENING)
    return app


def _configuration(settings: Settings) -> dict[str, Any]:
    return {
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_acks_late": False,
        "task_default_queue": JOBS_QUEUES["cpu"],
        "task_routes": {
            RUN_IMPORT: {"queue": IMPORTS_QUEUE},
            SWEEP: {"queue": SWEEPS_QUEUE},
        },
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "worker_pool": "threads",
        "worker_concurrency": settings.worker_concurrency,
        "worker_hijack_root_logger": False,
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "socket_connect_timeout": 2,
            "socket_timeout": SEND_SECONDS,
            "socket_keepalive": True,
            "retry_on_timeout": False,
            # A hint is not worth waiting for: a request that cannot send it goes on, and the
            # sweep sends it. Workers reconnect by the settings above, without end.
            "max_retries": 1,
            "interval_start": 0.1,
            "interval_step": 0.1,
        },
        "beat_schedule": {
            "sweep": {
                "task": SWEEP,
                "schedule": settings.sweep_seconds,
                # A sweep nobody had time for is worthless once the next one is due.
                "options": {"expires": settings.sweep_seconds},
            }
        },
    }


class CeleryQueue:
    """Sends hints to the workers' queue."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._paused_until = 0.0

    def send(self, job_id: UUID, device: str) -> None:
        """Tell a worker that has the device about the job, once.

        Raises:
            OSError: The broker does not answer, or did not a moment ago.
        """
        self._send(RUN_JOB, job_id, JOBS_QUEUES[device])

    def send_import(self, import_id: UUID) -> None:
        """Tell a worker about the order to import, as send does."""
        self._send(RUN_IMPORT, import_id, IMPORTS_QUEUE)

    def _send(self, task: str, wanted: UUID, queue: str) -> None:
        if time.monotonic() < self._paused_until:
            raise OSError("the broker does not answer: it did not a moment ago")
        try:
            self._app.send_task(
                task, args=[str(wanted)], queue=queue, ignore_result=True, retry=False
            )
        except OperationalError as error:
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            raise OSError(f"the broker does not answer: {error}") from error

    def jobs_waiting(self) -> dict[str, int]:
        """Hints at jobs of each device that no worker has taken yet; raises as waiting."""
        return {device: self.waiting(queue) for device, queue in JOBS_QUEUES.items()}

    def waiting(self, queue: str) -> int:
        """Hints that no worker has taken yet; raises OSError when the broker does not answer."""
        try:
            with self._app.connection_for_write() as connection:
                channel = connection.default_channel
                return int(channel.queue_declare(queue, passive=True).message_count)
        except ChannelError:
            return 0  # nothing was ever sent
        except OperationalError as error:
            raise OSError(f"the broker does not answer: {error}") from error

    def check(self) -> None:
        """Raise OSError when the broker does not answer within two seconds."""
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=2)
        except OperationalError as error:
            raise OSError(f"the broker does not answer: {error}") from error
