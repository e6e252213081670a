"""A database that is briefly away ends no job: what counts as away, and trying again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, TimeoutError

from core.telemetry import logger

log = logger(__name__)
T = TypeVar("T")

# Internal errors are among them for the read-only server that a failover leaves behind.
DATABASE_AWAY = (OperationalError, InterfaceError, InternalError, TimeoutError)
PAUSE_SECONDS = 0.5


def outlast(
    work: Callable[[], T], *, seconds: float, give_up: Callable[[], bool] = lambda: False
) -> T:
    """Do the work, again and again while the database is away.

    Args:
        work: One transaction, fenced so that doing it twice does no harm: a commit whose answer
            was lost is repeated.
        seconds: How long to go on trying.
        give_up: Asked before each new try.

    Raises:
        OperationalError, InterfaceError, InternalError, TimeoutError: It stayed away.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return work()
        except DATABASE_AWAY as error:
            if time.monotonic() > deadline or give_up():
                raise
            log.warning("the database is away; trying again", error=str(error))
        time.sleep(PAUSE_SECONDS)
