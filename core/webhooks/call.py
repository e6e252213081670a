"""One call to a receiver: to the address that was looked at, once, and within a time limit."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import httpcore2 as httpcore

from core.errors import AddressRefused
from core.webhooks.address import resolve


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended: the status that came back, or what went wrong."""

    status: int | None
    error: str | None

    @property
    def arrived(self) -> bool:
        """Whether the receiver took it."""
        return self.error is None


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    trusted: AbstractSet[str],
    seconds: float,
) -> Answer:
    """Send the body; what is answered besides the status is not read, redirects not followed."""
    deadline = time.monotonic() + seconds
    backend = GuardedBackend(trusted, deadline)
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
    try:
        with (
            httpcore.ConnectionPool(network_backend=backend, http2=False) as pool,
            pool.stream(
                "POST",
                url,
                headers=list(headers.items()),
                content=body,
                extensions={"timeout": timeouts},
            ) as response,
        ):
            return _judged(response.status)
    except AddressRefused as error:
        return Answer(None, str(error))
    except httpcore.TimeoutException:
        return Answer(None, f"no answer within {seconds:g} seconds")
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        return Answer(None, f"{type(error).__name__}: {str(error)[:300]}")


def _judged(status: int) -> Answer:
    if 200 <= status < 300:
        return Answer(status, None)
    if 300 <= status < 400:
        return Answer(status, f"answered {status}; redirects are not followed")
    return Answer(status, f"answered {status}")


class GuardedBackend(httpcore.SyncBackend):
    """Connects to looked-at addresses only, whatever the name leads to a moment later.

    Args:
        trusted: Hosts whose addresses are not looked at.
        deadline: When all of it has to be over, on the monotonic clock.
    """

    def __init__(self, trusted: AbstractSet[str], deadline: float) -> None:
        super().__init__()
        self._trusted = trusted
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline is for all of it
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A stream to the first address that answers."""
        try:
            addresses = resolve(host, port, self._trusted)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} cannot be found: {error.strerror}") from error
        for number, address in enumerate(addresses, 1):
            left = remaining(self._deadline)
            try:
                stream = super().connect_tcp(address, port, left, local_address, socket_options)
                return _DeadlineStream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise httpcore.ConnectError(f"{host} has no address")


class _DeadlineStream(httpcore.NetworkStream):
    """Ends at the deadline, also where a receiver sends a byte now and then."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        """Some bytes, unless time is up."""
        return self._stream.read(max_bytes, remaining(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        """All bytes, unless time is up."""
        self._stream.write(buffer, remaining(self._deadline))

    def close(self) -> None:
        """Hang up."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """The same with TLS, checked against the name, not the address."""
        left = remaining(self._deadline)
        return _DeadlineStream(
            self._stream.start_tls(ssl_context, server_hostname, left), self._deadline
        )

    def get_extra_info(self, info: str) -> Any:
        """What the stream knows of itself."""
        return self._stream.get_extra_info(info)


def remaining(deadline: float) -> float:
    """Seconds until the deadline.

    Raises:
        httpcore.ReadTimeout: There are none left.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time is up")
    return left
