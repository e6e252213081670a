"""The header of a JPEG file: the walk over its segments, with what colour and position need."""

from __future__ import annotations

import re
import struct
from dataclasses import replace

from core.errors import ImageInvalid
from core.images.formats import JPEG
from core.images.headers.exif import orientation
from core.images.headers.header import MAX_SEGMENTS, Header, check_size, truncated

# Each scan of a progressive JPEG goes over the whole image: a small file can ask for hours.
# Encoders write 10 to 20.
MAX_SCANS = 100
# 20 scans over 50 million pixels, 100 over ten.
MAX_SCANNED_PIXELS = 2**30
# Bytes between segments are skipped one by one by the decoder.
MAX_JUNK = 65_536
# Pillow appends each to those before it. One holds all that cameras write.
MAX_EXIF_SEGMENTS = 64

# In entropy-coded data 0xFF is followed by 0x00 or a restart marker; anything else is a marker.
# Of a run of 0xFF the last one counts; to match the whole run would look at each of its bytes
# once for every one before it, and a file may have millions.
SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
MARKER = re.compile(rb"\xff[^\x00\xff]")
STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
END_OF_IMAGE, START_OF_SCAN = 0xD9, 0xDA
EXIF, PROFILE = (0xE1, b"Exif\x00\x00"), (0xE2, b"ICC_PROFILE\x00")


class _Metadata:
    """EXIF data and profile fragments of the segments before the first scan."""

    def __init__(self) -> None:
        self._exif: list[bytes] = []
        self._profile: dict[int, bytes] = {}
        self._fragments = 0

    def add(self, code: int, body: bytes) -> None:
        if code == EXIF[0] and body.startswith(EXIF[1]):
            self._exif.append(body)
            if len(self._exif) > MAX_EXIF_SEGMENTS:
                raise ImageInvalid(
                    f"the JPEG image has more than {MAX_EXIF_SEGMENTS} EXIF segments, "
                    "which sound files do not have"
                )
        elif code == PROFILE[0] and body.startswith(PROFILE[1]) and len(body) > 14:
            self._profile.setdefault(body[12], body[14:])
            self._fragments = body[13]

    def put_into(self, header: Header) -> Header:
        if not (self._exif or self._profile):
            return header
        numbers = range(1, self._fragments + 1)
        whole = self._fragments > 0 and set(self._profile) == set(numbers)
        profile = b"".join(self._profile[number] for number in numbers) if whole else None
        exif = self._exif[0] if self._exif else None
        return replace(header, orientation=orientation(exif), profile=profile)


def jpeg_header(data: bytes, max_pixels: int) -> Header:
    """Size, components, orientation and profile; the file has an end mark and few scans."""
    header, scans = jpeg_scans(data, max_pixels)
    gone_over = scans * header.width * header.height
    check_scanned(JPEG, gone_over)
    return header if header.profile else replace(header, work=gone_over)


def check_scanned(name: str, pixels: int) -> None:
    """Refuse an image whose scans together go over too many pixels."""
    if pixels > MAX_SCANNED_PIXELS:
        raise ImageInvalid(
            f"the {name} image has scans that go over {pixels:,} pixels together; "
            f"at most {MAX_SCANNED_PIXELS:,} are read"
        )


def jpeg_scans(data: bytes, max_pixels: int) -> tuple[Header, int]:
    """The header, and how many scans the decoder goes through."""
    header: Header | None = None
    metadata = _Metadata()
    position, segments, scans, junk = 2, 0, 0, 0
    while found := MARKER.search(data, position):
        code = data[found.end() - 1]
        junk += found.end() - 2 - position
        position = found.end()
        segments += 1
        if segments > MAX_SEGMENTS or scans > MAX_SCANS or junk > MAX_JUNK:
            raise ImageInvalid(
                f"the JPEG image has more than {MAX_SEGMENTS:,} segments, {MAX_SCANS} scans or "
                f"{MAX_JUNK:,} stray bytes, which sound files do not have"
            )
        if code == END_OF_IMAGE and header and scans:
            return metadata.put_into(header), scans
        if code in STANDALONE or code == END_OF_IMAGE:
            continue
        if code in FRAMES and header is None:
            header = _frame(data, position, max_pixels)
        if len(data) < position + 2:
            break
        end = position + max(2, int.from_bytes(data[position : position + 2]))
        if code in (EXIF[0], PROFILE[0]) and not scans:
            metadata.add(code, data[position + 2 : end])
        position = end
        if code == START_OF_SCAN:
            scans += 1
            scan_end = SCAN_END.search(data, position)
            position = scan_end.start() if scan_end else len(data)
    missing = "end-of-image mark" if header and scans else "frame header or its image data"
    raise truncated("JPEG", len(data), f"its {missing} is missing")


def _frame(data: bytes, position: int, max_pixels: int) -> Header | None:
    if len(data) < position + 8:
        return None
    depth, height, width, components = struct.unpack_from(">BHHB", data, position + 2)
    check_size(width, height, max_pixels)
    return Header(format=JPEG, width=width, height=height, bit_depth=depth, components=components)
