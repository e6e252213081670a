"""Structured logs and the metrics registry."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from core.config import Settings

REGISTRY = CollectorRegistry()
REQUESTS = Counter(
    "fewlabels_requests_total", "HTTP requests", ["method", "route", "status"], registry=REGISTRY
)
REQUEST_SECONDS = Histogram(
    "fewlabels_request_duration_seconds", "HTTP request time", ["route"], registry=REGISTRY
)
INFERENCE_IMAGES = Counter(
    "fewlabels_inference_images_total", "Images answered", ["outcome"], registry=REGISTRY
)
INFERENCE_BATCHES = Counter(
    "fewlabels_inference_batches_total", "Forward passes of served models", registry=REGISTRY
)
INFERENCE_BATCH = Histogram(
    "fewlabels_inference_batch_images",
    "Images in a forward pass",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
    registry=REGISTRY,
)
INFERENCE_SECONDS = Histogram(
    "fewlabels_inference_step_seconds",
    "Time of a request's slowest image in decode, queue and forward",
    ["step"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
# Over several processes a gauge is the sum of those that live.
INFERENCE_QUEUE = Gauge(
    "fewlabels_inference_queue_size",
    "Images waiting for a model",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)

STREAMS = Gauge(
    "fewlabels_event_streams",
    "Open event streams of jobs",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)


def configure_logging(settings: Settings) -> None:
    """Send every log line, ours and the libraries', through one renderer to standard error."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [
            # Plain: the default renders local variables, which are slow to print and may be secret.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    # No line says where in the code it was written: looking it up for each takes as long as the
    # rest of it (https://docs.python.org/3/howto/logging.html#optimization).
    logging._srcfile = None
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger that carries the request and job ids bound around it."""
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return bound


@contextmanager
def bound(**values: object) -> Iterator[None]:
    """Add these values to every log line inside the block."""
    with structlog.contextvars.bound_contextvars(**values):
        yield


def current(name: str) -> str | None:
    """What is bound under the name around the caller."""
    value = structlog.contextvars.get_contextvars().get(name)
    return None if value is None else str(value)


def carried(work: Callable[[], None]) -> Callable[[], None]:
    """The work for another thread, with what is bound here; a thread begins with nothing."""
    return partial(copy_context().run, work)
