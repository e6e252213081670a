"""The blob store's protocol, its key format, and the one place that opens a store by URL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from core.errors import ConfigurationInvalid
from core.storage.folder import FolderStore
from core.storage.keys import check_key

__all__ = ["BlobStore", "Readable", "check_key", "open_store"]


class Readable(Protocol):
    """A stream of bytes; StoreUnavailable, of a folder OSError, where they stop to come."""

    def read(self, size: int, /) -> bytes | None:
        """Up to so many bytes; none at the end."""


class BlobStore(Protocol):
    """Bytes under content-addressed keys `namespace/sha256`; any number of threads may call it.

    Every method raises StoreUnavailable when the store does not answer or refuses, and
    ValueError for a key of another form.
    """

    def prepare(self) -> None:
        """Make the folder or bucket if it is not there."""

    def check(self) -> None:
        """Ask the store whether it can be used; StoreUnavailable says why not."""

    def put(self, key: str, data: bytes) -> None:
        """Store the bytes; all of them or nothing, and again is the same as once."""

    def put_all(self, blobs: Mapping[str, bytes]) -> None:
        """Store many small ones, faster than one by one; each as atomic as put."""

    def put_file(self, key: str, path: Path) -> None:
        """Store a file's bytes without reading it into memory; as atomic as put."""

    def get(self, key: str) -> bytes:
        """The bytes; BlobNotFound when there are none."""

    def fetch(self, key: str, path: Path) -> None:
        """Write the bytes to a file that appears complete or not at all; BlobNotFound as get."""

    def open(self, key: str) -> AbstractContextManager[Readable]:
        """The bytes as a stream, not held in memory; BlobNotFound as get."""

    def exists(self, key: str) -> bool:
        """Whether there are bytes under the key."""

    def delete(self, key: str) -> None:
        """Forget the bytes; nothing happens when there are none."""

    def keys(self, namespace: str) -> Iterator[str]:
        """All keys of one namespace, in order."""


def open_store(url: str) -> BlobStore:
    """The store that a URL names; nothing is contacted or made yet.

    Args:
        url: `file:///absolute/path` or
            `s3://ACCESS_KEY:SECRET_KEY@host:port/bucket?secure=false&region=us-east-1`
            (keys URL-encoded, `secure` true unless said otherwise).

    Raises:
        ConfigurationInvalid: The URL has another form; the message does not repeat the URL,
            which may hold a secret.
    """
    scheme = re.match(r"[a-z0-9+.-]*(?=:)", url)
    found = scheme.group() if scheme else ""
    if found == "file":
        return FolderStore(_folder(url))
    if found == "s3":
        # Only where there is one: most processes live shortly and have blobs in a folder.
        from core.storage.s3 import S3Store  # noqa: PLC0415

        return S3Store.from_url(url)
    raise ConfigurationInvalid(
        f"FEWLABELS_BLOB_URL: found a {found!r} URL, only file:// and s3:// are supported"
    )


def _folder(url: str) -> Path:
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    if parts.netloc not in {"", "localhost"} or not path.is_absolute() or parts.query:
        raise ConfigurationInvalid(
            "FEWLABELS_BLOB_URL: a file URL has an absolute path and no host: file:///folder"
        )
    return path
