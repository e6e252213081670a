"""A job from now to its end, over lines that break and servers that restart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from core.client import ServiceClient, ServiceUnreachable, Told

PAUSE_SECONDS = 1.0


def follow(
    client: ServiceClient,
    job_id: str,
    *,
    patience: float,
    lost: Callable[[str], None],
    after: str | None = None,
) -> Iterator[Told]:
    """What happens to the job, each event once; the last one is `end`.

    Args:
        client: Calls the service.
        job_id: Of the job.
        patience: Seconds for which the service may not answer.
        lost: Told why, when a connection breaks.
        after: The id of the last event that is known.

    Raises:
        ServiceUnreachable: It did not answer for longer.
        ServiceRefused: There is no such job, or the key may not see it.
    """
    silent_since: float | None = None
    while True:
        try:
            for told in client.events(job_id, after=after):
                silent_since = None
                after = told.id or after
                yield told
                if told.kind == "end":
                    return
        except ServiceUnreachable as error:
            now = time.monotonic()
            silent_since = now if silent_since is None else silent_since
            if now - silent_since > patience:
                raise
            lost(str(error))
        time.sleep(PAUSE_SECONDS)
