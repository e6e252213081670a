"""Metrics of a worker, on a port of its own where the settings name one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pynvml
from celery.signals import worker_ready
from prometheus_client import REGISTRY as _OF_PROCESS
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from core.config import process_settings
from core.telemetry import logger

log = logger(__name__)
REGISTRY = CollectorRegistry()
MINUTES = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600)
ATTEMPTS = Counter(
    "fewlabels_worker_attempts_total",
    "Attempts at jobs by how their process ended",
    ["outcome"],
    registry=REGISTRY,
)
ATTEMPT_SECONDS = Histogram(
    "fewlabels_worker_attempt_seconds",
    "Time of attempts at jobs",
    buckets=MINUTES,
    registry=REGISTRY,
)
LEASES_LOST = Counter(
    "fewlabels_worker_leases_lost_total",
    "Jobs that another worker has taken over",
    registry=REGISTRY,
)
LEASES_EXPIRED = Counter(
    "fewlabels_sweep_leases_expired_total",
    "Jobs that the sweep took from silent workers",
    registry=REGISTRY,
)


def note_end(code: int, reason: str, *, lost: bool) -> None:
    """Count an attempt by how its process ended, and why it was asked to."""
    # 0 is an end that the process has written itself. The lease is over with it, so that the
    # keeper may find it lost in the same moment: nobody has taken the job.
    if code == 0:
        outcome = "completed"
    else:
        outcome = reason or "died"
        LEASES_LOST.inc(int(lost))
    ATTEMPTS.labels(outcome).inc()


class GpuMemory(Collector):
    """Memory of the GPUs as the driver tells it; nothing where there is none."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Bytes in use and in all, of each GPU."""
        family = GaugeMetricFamily(
            "fewlabels_gpu_memory_bytes", "Memory of a GPU", labels=["gpu", "kind"]
        )
        try:
            pynvml.nvmlInit()
            try:
                for number in range(pynvml.nvmlDeviceGetCount()):
                    handle = pynvml.nvmlDeviceGetHandleByIndex(number)
                    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
                    family.add_metric([str(number), "used"], float(memory.used))
                    family.add_metric([str(number), "total"], float(memory.total))
            finally:
                pynvml.nvmlShutdown()
        except pynvml.NVMLError:
            return  # no driver, or no GPU
        yield family


REGISTRY.register(GpuMemory())
for _collector in list(_OF_PROCESS._collector_to_names):
    REGISTRY.register(_collector)  # memory, processor time and open files of this process


@worker_ready.connect
def _serve(sender: Any, **_: Any) -> None:
    settings = process_settings()
    port = settings.worker_metrics_port
    if not port:
        return
    if str(sender.hostname).startswith("beat@"):
        port += 1  # beside the worker on the same machine
    try:
        start_http_server(port, addr=settings.worker_metrics_host, registry=REGISTRY)
    except OSError as error:
        # Jobs are worth more than their metrics.
        log.error("metrics are not served", port=port, error=str(error))
