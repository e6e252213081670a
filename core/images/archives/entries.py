"""What comes out of an archive, what is left out, and how much may come."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from core.errors import ArchiveTooLarge

# zipfile reads as many packed bytes ahead as it is asked for unpacked ones, and the ratio is told
# from the packed bytes read: small steps find a bomb early.
CHUNK = 16 * 1024
RATIO_COUNTS_FROM = 2**20
MAX_NAME = 1024
MAX_READ_NAME = 4 * MAX_NAME  # a character may be composed of several
JUNK_FOLDERS = frozenset({"__macosx"})
JUNK_FILES = frozenset({"thumbs.db", "desktop.ini"})
SEPARATORS = re.compile(r"[/\\]")
DRIVE = re.compile(r"[A-Za-z]:")
# Control characters, halves of surrogate pairs, line and paragraph separators.
UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
# They show the rest of a line backwards: "gpj.exe" as "exe.jpg".
DIRECTION_MARKS = frozenset(
    "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)

RejectionCode = Literal[
    "corrupt_entry",
    "encrypted",
    "entry_too_large",
    "decompression_bomb",
    "not_a_file",
    "unsafe_name",
    "unsupported_entry",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveLimits:
    """The first two hold for the whole archive, the others for each entry.

    `max_ratio` is unpacked to packed bytes and counts for entries above 1 MiB.
    """

    max_entries: int
    max_bytes: int
    max_ratio: float
    max_file_bytes: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why an entry has no data: a stable code and a sentence."""

    code: RejectionCode
    detail: str


@dataclass(frozen=True, slots=True)
class Member:
    """One file: either its `data` or the reason why there is none.

    `name` is for people and for matching labels; it is never used as a path.
    """

    name: str
    data: bytes | None = None
    rejected: Rejected | None = None


@dataclass(slots=True)
class Budget:
    """Counts entries and unpacked bytes of the whole archive against the limits."""

    limits: ArchiveLimits
    entries: int = 0
    unpacked: int = 0

    def count_entry(self) -> None:
        """One more entry, wanted or not.

        Raises:
            ArchiveTooLarge: That is one too many.
        """
        self.entries += 1
        if self.entries > self.limits.max_entries:
            raise ArchiveTooLarge(
                f"the archive has more than {self.limits.max_entries:,} entries, "
                "which is the most that is allowed"
            )

    def count_bytes(self, count: int) -> None:
        """More unpacked bytes, kept or not.

        Raises:
            ArchiveTooLarge: Those are too many.
        """
        self.unpacked += count
        if self.unpacked > self.limits.max_bytes:
            raise ArchiveTooLarge(
                f"the archive unpacks to more than {self.limits.max_bytes:,} bytes, "
                "which is the most that is allowed"
            )


def read_entry(
    read: Callable[[int], bytes], budget: Budget, *, packed: Callable[[], int]
) -> bytes | Rejected:
    """An entry's bytes until `read` gives none; or, before its end, why it is rejected.

    Args:
        read: Gives up to so many unpacked bytes.
        budget: Of the whole archive.
        packed: Packed bytes that the entry has used so far.
    """
    limits = budget.limits
    chunks, size = [], 0
    while chunk := read(CHUNK):
        budget.count_bytes(len(chunk))
        size += len(chunk)
        if size > RATIO_COUNTS_FROM and size > limits.max_ratio * max(packed(), 1):
            return Rejected(
                "decompression_bomb",
                f"unpacks to more than {limits.max_ratio:g} times its packed size, "
                "as no image does",
            )
        if size > limits.max_file_bytes:
            return Rejected(
                "entry_too_large",
                f"unpacks to more than {limits.max_file_bytes:,} bytes, "
                "which is the most that is allowed for one file",
            )
        chunks.append(chunk)
    return b"".join(chunks)


def shown_name(raw: str) -> str:
    """A name fit to store and to show: NFC, no control characters, no leading `./`."""
    # Normalising puts marks in order, which takes the square of how many follow each other.
    kept = raw = raw[:MAX_READ_NAME]
    if not (raw.isascii() and raw.isprintable()):  # which is what most names are
        kept = "".join(
            character
            for character in unicodedata.normalize("NFC", raw)
            if unicodedata.category(character) not in UNPRINTABLE
            and character not in DIRECTION_MARKS
        )
    return kept.removeprefix("./")[:MAX_NAME] or "(no name)"


def is_junk(raw: str) -> bool:
    """Whether operating systems put this file there, not the user."""
    *folders, last = (part.lower() for part in SEPARATORS.split(raw))
    hidden = any(part.startswith(".") and part not in (".", "..") for part in (*folders, last))
    return hidden or last in JUNK_FILES or not JUNK_FOLDERS.isdisjoint(folders)


def unsafe_name(raw: str) -> Rejected | None:
    """The rejection of a name that points outside its folder, None for others."""
    if raw.startswith(("/", "\\")) or DRIVE.match(raw) or ".." in SEPARATORS.split(raw):
        return Rejected(
            "unsafe_name",
            "the name is absolute or has '..' in it; names must be relative and stay inside",
        )
    return None
