"""Tar archives as a stream of blocks, with every byte counted and none believed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from core.errors import ArchiveInvalid
from core.images.archives.entries import (
    CHUNK,
    Budget,
    Member,
    Rejected,
    is_junk,
    read_entry,
    shown_name,
    unsafe_name,
)

BLOCK = 512
MAX_METADATA = 2**20
# Extended headers before one entry; archivers write one or two.
MAX_EXTENSIONS = 8
# xz -9 needs 65 MiB; files may ask for gigabytes.
XZ_MEMORY = 128 * 2**20
# What a decompressor may have read ahead of the entry that it is asked for.
READ_AHEAD = 128 * 1024

PAX = frozenset({tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE})
EXTENSIONS = PAX | {tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}

UNPACKING_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, MemoryError)


class Readable(Protocol):
    """A stream of bytes; `read` may give fewer than asked for only at the end."""

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Packing:
    """A compressed file: how it is packed, and the stream of unpacked bytes."""

    name: str
    stream: Readable


class _Xz(io.RawIOBase):
    """Unpacked bytes of an xz file; the standard library's own file class has no memory limit."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self.file = file
        self.decompressor = self._fresh()

    @staticmethod
    def _fresh() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        while True:
            packed = b""
            if self.decompressor.eof:
                packed = self.decompressor.unused_data or self.file.read(CHUNK)
                if not (packed := packed.lstrip(b"\0")):
                    return 0
                self.decompressor = self._fresh()
            elif self.decompressor.needs_input and not (packed := self.file.read(CHUNK)):
                raise EOFError("the compressed stream ends before its end mark")
            if data := self.decompressor.decompress(packed, len(buffer)):
                buffer[: len(data)] = data
                return len(data)


@dataclass(slots=True)
class _Entry:
    """A tar header with what its extended headers say."""

    name: str
    kind: bytes
    size: int
    sparse: bool


class _Blocks:
    """Counted reading; anything short of what was asked for is a truncated archive."""

    def __init__(self, stream: Readable, budget: Budget) -> None:
        self.stream = stream
        self.budget = budget
        self.left = 0
        self.padding = 0

    def exactly(self, size: int) -> bytes:
        data = self._read(size)
        if len(data) < size:
            raise ArchiveInvalid(
                f"the tar archive is cut off after {self.budget.entries:,} entries: "
                "its end mark is missing"
            )
        return data

    def header(self) -> bytes:
        self.budget.count_bytes(BLOCK)
        return self.exactly(BLOCK)

    def start_entry(self, size: int) -> None:
        self.left, self.padding = size, -size % BLOCK

    def entry_bytes(self, size: int) -> bytes:
        data = self.exactly(min(size, self.left))
        self.left -= len(data)
        return data

    def skip_rest(self) -> None:
        while data := self.entry_bytes(CHUNK):
            self.budget.count_bytes(len(data))
        self.exactly(self.padding)

    def drain(self) -> None:
        while data := self._read(CHUNK):
            self.budget.count_bytes(len(data))

    def _read(self, size: int) -> bytes:
        try:
            return self.stream.read(size)
        except UNPACKING_ERRORS as error:
            raise ArchiveInvalid(
                f"the compressed archive is cut off or damaged after {self.budget.entries:,} "
                f"entries ({error})"
            ) from error


def is_header(block: bytes) -> bool:
    """Whether a tar archive may start with this block; an empty archive starts with zeros."""
    if len(block) != BLOCK:
        return False
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except tarfile.HeaderError:
        return not any(block)
    return True


def open_packed(head: bytes, file: BinaryIO) -> Packing | None:
    """The unpacked stream of a gzip, bzip2 or xz file, None when it is none of them."""
    if head.startswith(b"\x1f\x8b"):
        return Packing("gzip", gzip.GzipFile(fileobj=file))
    if head.startswith(b"BZh"):
        return Packing("bzip2", bz2.BZ2File(file))
    if head.startswith(b"\xfd7zXZ\x00"):
        return Packing("xz", io.BufferedReader(_Xz(file), CHUNK))
    return None


def tar_members(
    stream: Readable, budget: Budget, *, packing: str | None, raw: BinaryIO
) -> Iterator[Member]:
    """The files of a tar archive in order; `raw` is the file under a compressed stream."""
    blocks = _Blocks(stream, budget)
    while entry := _next_entry(blocks, packing):
        budget.count_entry()
        blocks.start_entry(entry.size if _has_data(entry.kind) else 0)
        unsafe = unsafe_name(entry.name)
        folder = entry.kind == tarfile.DIRTYPE or entry.name.endswith("/")
        if not folder and (unsafe or not is_junk(entry.name)):
            content = unsafe or _unreadable(entry) or _content(blocks, raw)
            name = shown_name(entry.name)
            if isinstance(content, Rejected):
                yield Member(name, rejected=content)
            else:
                yield Member(name, data=content)
            # The consumer is done with it: the next entry must not find this one in memory.
            del content
        blocks.skip_rest()
    if packing:
        # The checksum of the compressed stream comes last.
        blocks.drain()


def _content(blocks: _Blocks, raw: BinaryIO) -> bytes | Rejected:
    start = raw.tell() - READ_AHEAD
    return read_entry(blocks.entry_bytes, blocks.budget, packed=lambda: raw.tell() - start)


def _has_data(kind: bytes) -> bool:
    # As tarfile: links, devices and folders have none, whatever size their header states;
    # kinds that nobody knows are taken for files.
    return kind in tarfile.REGULAR_TYPES or kind not in tarfile.SUPPORTED_TYPES


def _unreadable(entry: _Entry) -> Rejected | None:
    if entry.sparse:
        return Rejected("unsupported_entry", "the entry is a sparse file; pack without --sparse")
    if entry.kind not in tarfile.REGULAR_TYPES:
        return Rejected("not_a_file", "the entry is a link or a device, not a file")
    return None


def _next_entry(blocks: _Blocks, packing: str | None) -> _Entry | None:
    """The next header with its extensions applied, None at the end mark."""
    long_name, pax = None, dict[str, str]()
    for _ in range(MAX_EXTENSIONS + 1):
        block = blocks.header()
        if not any(block):
            return None
        info = _parse_header(block, blocks.budget, packing)
        if info.type not in EXTENSIONS:
            sparse = any(key.startswith("GNU.sparse") for key in pax)
            if info.type == tarfile.GNUTYPE_SPARSE:
                sparse = True
                _skip_sparse_map(block, blocks)
            size = _size(pax.get("size", ""), info.size)
            name = pax.get("path") or long_name or info.name
            return _Entry(pax.get("GNU.sparse.name", name), info.type, size, sparse)
        if info.size > MAX_METADATA:
            break
        blocks.budget.count_bytes(info.size)
        text = blocks.exactly(info.size)
        blocks.exactly(-info.size % BLOCK)
        if info.type == tarfile.GNUTYPE_LONGNAME:
            long_name = text.split(b"\0", 1)[0].decode("utf-8", "replace")
        elif info.type in PAX:
            pax = _parse_pax(text)
    raise ArchiveInvalid(
        f"the tar archive is damaged after {blocks.budget.entries:,} entries: "
        "the extended headers before an entry are out of proportion"
    )


def _parse_header(block: bytes, budget: Budget, packing: str | None) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        if info.size < 0:
            raise tarfile.HeaderError("negative size")
    except (tarfile.HeaderError, ValueError) as error:
        if packing and budget.entries == 0:
            raise ArchiveInvalid(
                f"the body is {packing}-compressed, but what is inside is not a tar archive"
            ) from error
        raise ArchiveInvalid(
            f"the tar archive is damaged after {budget.entries:,} entries ({error})"
        ) from error
    return info


def _skip_sparse_map(block: bytes, blocks: _Blocks) -> None:
    more = block[482]
    while more:
        more = blocks.header()[504]


def _size(stated: str, fallback: int) -> int:
    # A pax header states sizes that the old header has no room for.
    return int(stated) if stated.isdecimal() and len(stated) < 20 else fallback


def _parse_pax(text: bytes) -> dict[str, str]:
    """Records of the form `LENGTH KEY=VALUE` and a line feed; reading ends at the first odd one."""
    records: dict[str, str] = {}
    position = 0
    while position < len(text):
        digits, _, _ = text[position : position + 20].partition(b" ")
        if not digits.isdigit() or not len(digits) + 1 < int(digits) <= len(text) - position:
            break
        record = text[position + len(digits) + 1 : position + int(digits) - 1]
        key, _, value = record.partition(b"=")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        position += int(digits)
    return records
