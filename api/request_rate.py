"""How many requests a key may send in a second, counted in the broker for all API processes."""

from __future__ import annotations

import time

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import BlockingConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from core.auth import Caller
from core.config import Settings, required
from core.errors import TooManyRequests
from core.telemetry import logger

log = logger(__name__)
PREFIX = "fewlabels:requests"
CONNECTIONS = 32
# Longer than the loop is ever busy; the broker answers in a fraction of a millisecond.
PATIENCE_SECONDS = 1.0
PAUSE_SECONDS = 5.0
WARNING_SECONDS = 60.0


class RequestRate:
    """Counts over a sliding second; made and used in one event loop.

    When the broker does not answer, requests are let in uncounted: a limit protects the service
    from its callers, and must not be what stops it. Each failure pauses the counting, so that no
    request after it waits.
    """

    def __init__(self, settings: Settings) -> None:
        self._most = settings.requests_per_second if settings.auth_mode == "keys" else 0
        self._limit = RateLimitItemPerSecond(max(1, self._most))
        self._pool = BlockingConnectionPool.from_url(
            required(settings.broker_url, "FEWLABELS_BROKER_URL"),
            max_connections=CONNECTIONS,
            timeout=PATIENCE_SECONDS,
            socket_timeout=PATIENCE_SECONDS,
            socket_connect_timeout=PATIENCE_SECONDS,
            retry=Retry(NoBackoff(), 1),  # a connection that a restart of the broker has closed
        )
        storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=PREFIX,
            connection_pool=self._pool,  # type: ignore[arg-type]
        )
        self._limiter = MovingWindowRateLimiter(storage)
        self._paused_until = self._silent_until = 0.0

    @property
    def policy(self) -> str | None:
        """The limit as the RateLimit-Policy header says it; None: there is none."""
        return f'"key";q={self._most};w=1' if self._most else None

    async def admit(self, caller: Caller) -> None:
        """Count a request.

        Raises:
            TooManyRequests: The key has sent too many within the last second.
        """
        if not self._counts():
            return
        try:
            admitted = await self._limiter.hit(self._limit, str(caller.key_id))
        except (RedisError, OSError) as error:
            self._pause(error)
            return
        if not admitted:
            raise TooManyRequests(
                f"found more than {self._most} requests of this API key within a second; send "
                "fewer, or several images in one request",
                retry_after=1,
            )

    async def left(self, caller: Caller) -> int | None:
        """How many requests the key may still send in this second; None: any number."""
        if not self._counts():
            return None
        try:
            stats = await self._limiter.get_window_stats(self._limit, str(caller.key_id))
        except (RedisError, OSError) as error:
            self._pause(error)
            return None
        return max(0, stats.remaining)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    def _counts(self) -> bool:
        return bool(self._most) and time.monotonic() >= self._paused_until

    def _pause(self, error: Exception) -> None:
        now = time.monotonic()
        self._paused_until = now + PAUSE_SECONDS
        if now >= self._silent_until:
            self._silent_until = now + WARNING_SECONDS
            log.warning("requests are not counted: the broker does not answer", error=repr(error))
