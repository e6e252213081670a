"""The one thing that is wanted of EXIF data: how the camera was held."""

from __future__ import annotations

import struct

ORIENTATION_TAG = 0x0112


def orientation(exif: object) -> int:
    """EXIF orientation 1 to 8; 1 when there is none or the EXIF data is malformed.

    Odd metadata does not make an image unusable, so nothing is raised.
    """
    if not isinstance(exif, bytes):
        return 1
    tiff = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 1
    start = struct.unpack_from(order + "I", tiff, 4)[0]
    if start + 2 > len(tiff):
        return 1
    count = struct.unpack_from(order + "H", tiff, start)[0]
    for entry in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
        if tag == ORIENTATION_TAG:
            return value if kind == 3 and 1 <= value <= 8 else 1
    return 1
