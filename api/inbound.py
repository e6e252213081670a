"""How much of the bodies of serving requests may be in memory at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request

from core.config import Settings
from core.errors import Overloaded

MB = 2**20


class Inbound:
    """Room for bodies, taken before a byte is read and held until the answer; on one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.max_inbound_mb * MB
        self._largest = settings.max_inference_bytes
        self._taken = 0

    @contextmanager
    def room(self, request: Request) -> Iterator[None]:
        """Room for the body of a request; a lone request always has it.

        Raises:
            Overloaded: The bodies of other requests fill it.
        """
        wanted = self._expected(request)
        if self._taken and self._taken + wanted > self._limit:
            raise Overloaded(
                f"body: found {wanted} bytes; the requests under way have {self._taken}, and all "
                f"together at most {self._limit} may; try again in a moment"
            )
        self._taken += wanted
        try:
            yield
        finally:
            self._taken -= wanted

    def _expected(self, request: Request) -> int:
        # A body that does not say its length may be as long as one may be.
        stated = request.headers.get("content-length", "")
        return min(int(stated), self._largest) if stated.isdecimal() else self._largest
