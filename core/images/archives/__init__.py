"""Uploaded archives, entry by entry: zip, and tar plain or packed with gzip, bzip2 or xz."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from core.errors import ArchiveInvalid
from core.images.archives.arriving import Readable, on_disk, with_head
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


def members(stream: Readable, *, limits: ArchiveLimits, scratch: Path) -> Iterator[Member]:
    """The archive's files in order, one in memory at a time.

    Directories, dot-files, `__MACOSX/`, `Thumbs.db` and `desktop.ini` are left out. What a user
    would expect to find but cannot be read comes as a member with `rejected`. The kind of archive
    is told by the content, sizes are counted while reading.

    Args:
        stream: The archive; it need not seek. A tar archive is read as it arrives, a zip archive,
            whose directory is at its end, goes through a file.
        limits: What is allowed.
        scratch: Folder for that file, made when it is not there.

    Raises:
        ArchiveInvalid: Not an archive, or cut off or damaged; after the entries before the damage.
        ArchiveTooLarge: More entries or more unpacked bytes in all than allowed; likewise.
    """
    head, whole = with_head(stream, BLOCK)
    budget = Budget(limits)
    if head.startswith(ZIP_MAGIC):
        with on_disk(whole, scratch) as file:
            yield from zip_members(file, budget)
    elif packing := open_packed(head, whole):
        yield from tar_members(packing.stream, budget, packing=packing.name, raw=whole)
    elif is_header(head):
        yield from tar_members(whole, budget, packing=None, raw=whole)
    else:
        raise ArchiveInvalid(f"the body is neither a zip nor a tar archive: {describe(head[:32])}")
