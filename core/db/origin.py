"""Where a row comes from: the request that asked for it, and its trace."""

from __future__ import annotations

from sqlalchemy.orm import Mapped


class Requested:
    """The columns of a job that tie what happens to it to the request that created it.

    Both are for logs and traces; nothing decides by them, and none is there for jobs of programs
    that call core themselves.
    """

    request_id: Mapped[str | None]
    trace_context: Mapped[str | None]  # W3C traceparent
