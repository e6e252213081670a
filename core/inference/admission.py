"""How many images of a model may be on their way at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import Overloaded

SHORTEST_SECONDS = 1.0


class Admission:
    """Places for images, from before they are decoded to their answers; on one event loop."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._taken = 0

    @contextmanager
    def places(self, count: int, *, item_seconds: float) -> Iterator[None]:
        """Hold places for all of a request's images, or refuse it at once.

        Args:
            count: Images of the request.
            item_seconds: What an image took lately, for the time to come again.

        Raises:
            Overloaded: There is no room for all of them.
        """
        if self._taken + count > self._places:
            raise Overloaded(
                f"{self._taken} images are waiting for this model, at most {self._places} may, "
                f"and the request has {count}; try again in a moment",
                retry_after=max(SHORTEST_SECONDS, self._taken * item_seconds),
            )
        self._taken += count
        try:
            yield
        finally:
            self._taken -= count
