"""The minio SDK with bounded waiting, patience with a server that is away, and one error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError, MaxRetryError

from core.errors import BlobNotFound, StoreUnavailable
from core.storage.s3.address import S3Address

ResultT = TypeVar("ResultT")
CONNECT_SECONDS = 3.0
READ_SECONDS = 60.0
RETRIES = 2  # of a single request, within half a second
# Of a whole operation: a server that restarts is back before the last of them.
PAUSES = (0.5, 1.0, 2.0, 4.0)
PATIENCE_SECONDS = 30.0  # no new try after that, however slowly the others failed
SERVER_ERROR = 500
# A server that was started again has forgotten the parts of a file that it had.
PASSING_CODES = frozenset({"NoSuchUpload", "RequestTimeout", "SlowDown"})


class Refused(Exception):
    """An answer with an error status and no XML, such as a proxy's HTML page."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status


FAILURES = (MinioException, Refused, HTTPError)


class TolerantPool(urllib3.PoolManager):
    """Bounded waiting, and errors that the SDK can read whatever XML type the server states.

    The SDK parses error bodies of type application/xml only; other S3 servers (rclone's among
    them) send text/xml, which it would report as an unintelligible answer.
    """

    def __init__(self) -> None:
        super().__init__(
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            retries=urllib3.Retry(
                total=RETRIES,
                backoff_factor=0.2,
                status_forcelist=[500, 502, 503, 504],
                # The last answer says more than "too many retries"; how long to wait is our affair.
                raise_on_status=False,
                respect_retry_after_header=False,
            ),
            maxsize=16,
        )

    def urlopen(self, method: str, url: str, redirect: bool = True, **rest: Any) -> Any:  # type: ignore[override]
        response = super().urlopen(method, url, redirect=redirect, **rest)
        if response.status < 400 or method == "HEAD":
            return response
        kind = response.headers.get("content-type", "").split(";")[0].strip()
        if kind not in {"text/xml", "application/xml"}:
            response.drain_conn()
            raise Refused(response.status)
        response.headers["content-type"] = "application/xml"
        return response


def make_client(address: S3Address) -> Minio:
    """The SDK's client; nothing is contacted."""
    return Minio(
        endpoint=address.endpoint,
        access_key=address.access_key,
        secret_key=address.secret_key,
        secure=address.secure,
        region=address.region,
        http_client=TolerantPool(),
    )


def insist(call: Callable[[], ResultT]) -> ResultT:
    """The call's result, tried again with growing pauses while the server is away or overloaded.

    The call is one that does no harm when it is made twice.

    Raises:
        MinioException, Refused, HTTPError: The last failure, or one that does not pass.
    """
    began = time.monotonic()
    for pause in PAUSES:
        try:
            return call()
        except FAILURES as error:
            if not _passes(error) or time.monotonic() - began > PATIENCE_SECONDS:
                raise
        time.sleep(pause)
    return call()


@contextmanager
def translated(name: str, operation: str, key: str | None = None) -> Iterator[None]:
    """What goes wrong inside as an error of this project.

    Args:
        name: The store's, for the message.
        operation: What was tried.
        key: The blob's, where its absence is told apart.

    Raises:
        BlobNotFound: There is no blob of this key.
        StoreUnavailable: Anything else.
    """
    try:
        yield
    except FAILURES as error:
        status, code = status_and_code(error)
        if key is not None and status == 404 and code != "NoSuchBucket":
            raise BlobNotFound(f"no blob {key}") from None
        # Neither the error's text nor the URL: they may repeat what was signed.
        detail = f"{code} (HTTP {status})" if status else code
        raise StoreUnavailable(f"S3 store {name}: {operation} failed: {detail}") from error
    except (OSError, ParseError) as error:
        raise StoreUnavailable(f"S3 store {name}: {operation} failed: {error}") from error


def status_and_code(error: Exception) -> tuple[int | None, str]:
    """The HTTP status, None where there was no answer, and what S3 or we call it."""
    if isinstance(error, S3Error):
        return error.response.status, error.code or "unknown error"
    if isinstance(error, ServerError):
        return error.status_code, "server error"
    if isinstance(error, Refused):
        return error.status, "answer that is not S3's"
    if isinstance(error, MaxRetryError) and error.reason is not None:
        return None, type(error.reason).__name__
    return None, type(error).__name__


def _passes(error: Exception) -> bool:
    status, code = status_and_code(error)
    if status is None:
        return isinstance(error, HTTPError)
    return status >= SERVER_ERROR or code in PASSING_CODES
