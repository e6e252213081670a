"""Jobs by state and stage, and how long the oldest waits: metrics that the database knows."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from core.db.models import Job
from core.jobs.outages import DATABASE_AWAY
from core.jobs.states import JobState
from core.telemetry import logger

log = logger(__name__)
FRESH_SECONDS = 5.0  # however often and by however many it is asked


class Census(Collector):
    """Counts anew when the last count is some seconds old."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._lock = threading.Lock()
        self._families: list[GaugeMetricFamily] = []
        self._counted_at = -FRESH_SECONDS

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The metrics; none while the database is away, so that a gap is seen."""
        with self._lock:
            if time.monotonic() - self._counted_at >= FRESH_SECONDS:
                self._families = self._count()
                self._counted_at = time.monotonic()
            yield from self._families

    def exposition(self) -> bytes:
        """The metrics in the text format."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def _count(self) -> list[GaugeMetricFamily]:
        counted = select(Job.state, Job.stage, func.count()).group_by(Job.state, Job.stage)
        since = func.extract("epoch", func.clock_timestamp() - func.min(Job.created_at))
        oldest = select(since).where(Job.state == JobState.QUEUED)
        try:
            with self._sessions() as session:
                rows = session.execute(counted).all()
                waited = float(session.scalar(oldest) or 0)
        except DATABASE_AWAY as error:
            log.warning("jobs are not counted: the database is away", error=str(error))
            return []
        jobs = GaugeMetricFamily("fewlabels_jobs", "Jobs", labels=["state", "stage"])
        for state, stage, count in rows:
            jobs.add_metric([state, stage], count)
        length = sum(count for state, _, count in rows if state == JobState.QUEUED)
        queue = GaugeMetricFamily("fewlabels_job_queue_size", "Jobs that are queued", value=length)
        age = GaugeMetricFamily(
            "fewlabels_job_queue_oldest_seconds", "Age of the oldest queued job", value=waited
        )
        return [jobs, queue, age]
