"""A TIFF's first directory, read and written: the tags that pixels need, and no others."""

from __future__ import annotations

import struct

from core.errors import ImageInvalid
from core.images.headers.header import MAX_SEGMENTS, truncated

ORDERS = {b"II*\x00": "<", b"MM\x00*": ">"}
WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, ORIENTATION, SAMPLES, STRIP_ROWS, STRIP_COUNTS, PLANAR = 273, 274, 277, 278, 279, 284
PREDICTOR, COLOUR_MAP, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_COUNTS = (
    317,
    320,
    *range(322, 326),
)
INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT, JPEG_TABLES = 332, 338, 339, 347
YCBCR_WEIGHTS, YCBCR_SUBSAMPLING, YCBCR_PLACES, BLACK_WHITE, ICC_PROFILE = 529, 530, 531, 532, 34675

# Longest list under a tag. A decoder makes an object of each strip and tile.
MAX_PARTS = 65_536
MAX_SAMPLES = 6
LIMITS = {
    **dict.fromkeys((WIDTH, LENGTH, COMPRESSION, PHOTOMETRIC, FILL_ORDER, ORIENTATION, SAMPLES), 1),
    **dict.fromkeys((STRIP_ROWS, PLANAR, PREDICTOR, TILE_WIDTH, TILE_LENGTH, INK_SET), 1),
    **dict.fromkeys((STRIP_OFFSETS, STRIP_COUNTS, TILE_OFFSETS, TILE_COUNTS), MAX_PARTS),
    **dict.fromkeys((BITS, EXTRA_SAMPLES, SAMPLE_FORMAT), MAX_SAMPLES),
    **dict.fromkeys((YCBCR_WEIGHTS, YCBCR_SUBSAMPLING, YCBCR_PLACES, BLACK_WHITE), MAX_SAMPLES),
    COLOUR_MAP: 3 * 2**8,
    JPEG_TABLES: 2**16,
    ICC_PROFILE: 2**32,
}
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
SIZES = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, UNDEFINED: 1}
LETTERS = {BYTE: "B", SHORT: "H", LONG: "I"}
# Dropped from what the decoder gets: it is applied after decoding, and not by the plug-in.
OURS = frozenset({ORIENTATION, ICC_PROFILE})


class Directory:
    """The tags by number, each checked to lie inside the file and to be of a sound length."""

    def __init__(self, data: bytes) -> None:
        """Read the directory that the file's header points to.

        Raises:
            ImageInvalid: It is cut off or malformed, or has more entries than sound files.
        """
        self.data = data
        self._order = ORDERS[data[:4]]
        self._entries: dict[int, tuple[int, int, bytes]] = {}
        if len(data) < 8:
            raise truncated("TIFF", len(data), "its header is cut off")
        (start,) = struct.unpack_from(self._order + "I", data, 4)
        if start < 8 or start + 2 > len(data):
            raise truncated("TIFF", len(data), f"its directory is announced at {start:,}")
        (count,) = struct.unpack_from(self._order + "H", data, start)
        if start + 2 + 12 * count > len(data):
            raise truncated("TIFF", len(data), f"its directory of {count:,} entries is cut off")
        if count > MAX_SEGMENTS:
            raise ImageInvalid(
                f"the TIFF image has a directory of {count:,} entries; "
                f"sound files have some tens, and at most {MAX_SEGMENTS:,} are read"
            )
        for at in range(start + 2, start + 2 + 12 * count, 12):
            self._add(at)

    def _add(self, at: int) -> None:
        tag, kind, count = struct.unpack_from(self._order + "HHI", self.data, at)
        if (limit := LIMITS.get(tag)) is None or tag in self._entries:
            return
        if kind not in SIZES or not 0 < count <= limit:
            raise ImageInvalid(
                f"the TIFF image has {count:,} values of type {kind} under tag {tag}; "
                f"at most {limit:,} of a known type are read"
            )
        size = SIZES[kind] * count
        if size > 4:
            (place,) = struct.unpack_from(self._order + "I", self.data, at + 8)
            if place + size > len(self.data):
                raise truncated("TIFF", len(self.data), f"the values of tag {tag} are missing")
        self._entries[tag] = (kind, count, self.data[at + 8 : at + 12])

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def raw(self, tag: int) -> bytes | None:
        """The bytes of a tag's values."""
        if tag not in self._entries:
            return None
        kind, count, field = self._entries[tag]
        size = SIZES[kind] * count
        if size <= 4:
            return field[:size]
        (place,) = struct.unpack(self._order + "I", field)
        return self.data[place : place + size]

    def numbers(self, tag: int) -> tuple[int, ...]:
        """A tag's whole numbers; none when it is not there."""
        raw = self.raw(tag)
        if raw is None:
            return ()
        kind, count, _ = self._entries[tag]
        if kind not in LETTERS:
            raise ImageInvalid(f"the TIFF image has no whole numbers under tag {tag}")
        return struct.unpack(f"{self._order}{count}{LETTERS[kind]}", raw)

    def number(self, tag: int, default: int = 0) -> int:
        """A tag's one number."""
        return next(iter(self.numbers(tag)), default)

    def set_short(self, tag: int, value: int) -> None:
        """Say another number under a tag in the copy that `alone` makes."""
        self._entries[tag] = (SHORT, 1, struct.pack(self._order + "HH", value, 0))

    def alone(self) -> bytes:
        """The file with a directory at its end that has only these tags, and no other picture."""
        kept = sorted(set(self._entries) - OURS)
        entries = [
            struct.pack(self._order + "HHI", tag, *self._entries[tag][:2]) + self._entries[tag][2]
            for tag in kept
        ]
        padding = bytes(len(self.data) % 2)
        start = struct.pack(self._order + "I", len(self.data) + len(padding))
        count = struct.pack(self._order + "H", len(entries))
        return b"".join((self.data[:4], start, self.data[8:], padding, count, *entries, bytes(4)))
