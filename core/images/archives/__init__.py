"""Uploaded archives, entry by entry: zip, and tar plain or packed with gzip, bzip2 or xz."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from core.errors import ArchiveInvalid
from core.images.archives.entries import (
    ArchiveLimits,
    Budget,
    Member,
    Rejected,
    RejectionCode,
    unsafe_name,
)
from core.images.archives.tars import BLOCK, is_header, open_packed, tar_members
from core.images.archives.zips import zip_members
from core.images.signatures import describe

__all__ = ["ArchiveLimits", "Member", "Rejected", "RejectionCode", "members", "unsafe_name"]

ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")


def members(path: Path, *, limits: ArchiveLimits) -> Iterator[Member]:
    """The archive's files in order, one in memory at a time; nothing is written to disk.

    Directories, dot-files, `__MACOSX/`, `Thumbs.db` and `desktop.ini` are left out. What a user
    would expect to find but cannot be read comes as a member with `rejected`. The kind of archive
    is told by the content, sizes are counted while reading.

    Raises:
        ArchiveInvalid: Not an archive, or cut off or damaged; after the entries before the damage.
        ArchiveTooLarge: More entries or more unpacked bytes in all than allowed; likewise.
    """
    with path.open("rb") as file:
        head = file.read(BLOCK)
        file.seek(0)
        budget = Budget(limits)
        if head.startswith(ZIP_MAGIC):
            yield from zip_members(file, budget)
        elif packing := open_packed(head, file):
            yield from tar_members(packing.stream, budget, packing=packing.name, raw=file)
        elif is_header(head):
            yield from tar_members(file, budget, packing=None, raw=file)
        else:
            raise ArchiveInvalid(
                f"the body is neither a zip nor a tar archive: {describe(head[:32])}"
            )
