"""Entry of a job's process, `python -m worker.run_job`: loads what a job needs, then runs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from uuid import UUID

from core.jobs.origin import Origin
from core.loading import loading

with loading():
    from worker.attempt import attempt


def start(words: Sequence[str]) -> int:
    """Run the job of a command line: its id, the token, the worker's process id, the origin."""
    job, token, worker, given = words
    return attempt(UUID(job), int(token), int(worker), Origin.from_argument(given))


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
