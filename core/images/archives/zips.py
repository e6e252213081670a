"""Zip archives, read with the standard library but without believing their directory."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from core.errors import ArchiveInvalid, ArchiveTooLarge
from core.images.archives.entries import (
    Budget,
    Member,
    Rejected,
    is_junk,
    read_entry,
    shown_name,
    unsafe_name,
)

DIRECTORY_SIGNATURE = b"PK\x01\x02"
# A directory record has 46 bytes, a name and a few extra fields: about 130 bytes in practice.
DIRECTORY_BYTES_PER_ENTRY = 512
SMALL_DIRECTORY = 2**20
ENCRYPTED_FLAG = 0x1
UTF8_FLAG = 0x800
MADE_ON_UNIX = 3
# Others (bzip2, LZMA) are unpacked by zipfile without a bound on what one step may give.
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})

# What zipfile raises on damaged archives; RuntimeError is its "encrypted" of older versions.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    ValueError,
)


class _GuardedFile(io.RawIOBase):
    """The archive's file for zipfile: bounds the directory before it is parsed, counts bytes.

    zipfile reads the whole directory at once and then makes an object of every record in it,
    however few records the archive's end announces. So what counts is seen here, in its read.
    """

    def __init__(self, file: BinaryIO, max_entries: int) -> None:
        super().__init__()
        self.file = file
        self.max_entries = max_entries
        self.opening = True
        self.bytes_read = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        length = -1 if size is None else size
        if self.opening:
            most = max(SMALL_DIRECTORY, self.max_entries * DIRECTORY_BYTES_PER_ENTRY)
            self._refuse_if(length > most)
        data = self.file.read(length)
        if self.opening:
            self._refuse_if(data.count(DIRECTORY_SIGNATURE) > self.max_entries)
        self.bytes_read += len(data)
        return data

    def _refuse_if(self, too_large: bool) -> None:
        if too_large:
            raise ArchiveTooLarge(
                f"the zip archive lists more entries than allowed (at most {self.max_entries:,}), "
                "or its list of entries is out of proportion"
            )


def zip_members(file: BinaryIO, budget: Budget) -> Iterator[Member]:
    """The files of a zip archive in the order of its directory."""
    guarded = _GuardedFile(file, budget.limits.max_entries)
    try:
        archive = zipfile.ZipFile(guarded)
    except ZIP_ERRORS as error:
        raise ArchiveInvalid(
            "the zip archive is cut off or damaged: its list of entries, at the end of the file, "
            f"cannot be read ({error})"
        ) from error
    guarded.opening = False
    with archive:
        for info in archive.infolist():
            budget.count_entry()
            name = _name(info)
            unsafe = unsafe_name(name)
            # Not info.is_dir(), which looks at the last character of a name that may be empty.
            if info.filename.endswith("/") or (is_junk(name) and not unsafe):
                continue
            content = unsafe or _unreadable(info) or _content(archive, info, guarded, budget)
            if isinstance(content, Rejected):
                yield Member(shown_name(name), rejected=content)
            else:
                yield Member(shown_name(name), data=content)
            # The consumer is done with it: the next entry must not find this one in memory.
            del content


def _name(info: zipfile.ZipInfo) -> str:
    # Finder writes UTF-8 without the flag for it, so zipfile takes the bytes for code page 437.
    if not info.flag_bits & UTF8_FLAG:
        try:
            return info.filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            return info.filename
    return info.filename


def _unreadable(info: zipfile.ZipInfo) -> Rejected | None:
    if info.flag_bits & ENCRYPTED_FLAG:
        return Rejected("encrypted", "the entry is encrypted; pack the archive without a password")
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == MADE_ON_UNIX else 0
    if kind not in (0, stat.S_IFREG):
        return Rejected("not_a_file", "the entry is a link or a device, not a file")
    if info.compress_type not in METHODS:
        return Rejected(
            "unsupported_entry",
            f"the entry is packed with method {info.compress_type}; "
            "only stored and deflated entries can be read",
        )
    return None


def _content(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, guarded: _GuardedFile, budget: Budget
) -> bytes | Rejected:
    try:
        with archive.open(info) as stream:
            start = guarded.bytes_read
            return read_entry(stream.read, budget, packed=lambda: guarded.bytes_read - start)
    except ZIP_ERRORS as error:
        return Rejected("corrupt_entry", f"the entry is damaged ({error or type(error).__name__})")
