"""Buckets of the store's server that belong to others: listed and read, never written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from core.storage.s3.address import S3Address
from core.storage.s3.client import insist, make_client, translated


@dataclass(frozen=True, slots=True)
class Listed:
    """An object: its whole name, and its bytes in number."""

    name: str
    size: int


class ForeignBucket:
    """A bucket that somebody else fills."""

    def __init__(self, address: S3Address, bucket: str) -> None:
        """Name it; nothing is contacted."""
        self._name = f"{address.endpoint}/{bucket}"
        self._bucket = bucket
        self._client = make_client(address)

    def listed(self, prefix: str, *, after: str | None = None) -> Iterator[Listed]:
        """The objects below a prefix in the order of their names, those after one of them.

        Raises:
            StoreUnavailable: The server does not answer or refuses, or has no such bucket.
        """
        with translated(self._name, "listing"):
            for item in self._client.list_objects(
                self._bucket, prefix=prefix, recursive=True, start_after=after
            ):
                name = cast(str, item.object_name)
                # Some servers do not heed start_after.
                wanted = after is None or name > after
                if wanted and not item.is_dir and not name.endswith("/"):
                    yield Listed(name, item.size or 0)

    def read(self, name: str) -> bytes:
        """An object's bytes.

        Raises:
            BlobNotFound: It is gone.
            StoreUnavailable: The server does not answer or refuses.
        """

        def whole() -> bytes:
            answer = self._client.get_object(self._bucket, name)
            try:
                data = answer.read()
                answer.release_conn()
            finally:
                answer.close()
            return data

        with translated(self._name, "reading", name):
            return insist(whole)
