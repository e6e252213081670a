"""What the API and a decoding process say to each other: files there, lines of JSON back.

No pickle: whoever takes over a decoder through a hole in it can send nothing but such lines.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import BinaryIO, cast

from core.errors import ImageInvalid, ImageTooCostly, ImageTooLarge
from core.images.decoding import ImageInfo
from core.images.formats import FORMATS

READY = b"ready\n"
COUNT = struct.Struct("<I")
LENGTH = struct.Struct("<Q")
REFUSALS = {kind.__name__: kind for kind in (ImageInvalid, ImageTooLarge, ImageTooCostly)}

Verdict = ImageInfo | ImageInvalid


def packed(files: Sequence[bytes]) -> bytes:
    """A message with files: how many, how long each is, then their bytes."""
    lengths = b"".join(LENGTH.pack(len(data)) for data in files)
    return b"".join((COUNT.pack(len(files)), lengths, *files))


def read_files(stream: BinaryIO) -> list[bytes]:
    """The files of the next message; none when the other side has gone."""
    head = stream.read(COUNT.size)
    if len(head) < COUNT.size:
        return []
    lengths = [LENGTH.unpack(stream.read(LENGTH.size))[0] for _ in range(COUNT.unpack(head)[0])]
    return [stream.read(length) for length in lengths]


def line_of(verdict: Verdict) -> bytes:
    """What became of one file, as a line of JSON."""
    if isinstance(verdict, ImageInvalid):
        said: list[object] = [verdict.code, str(verdict)]
    else:
        size = verdict.width, verdict.height
        said = [*size, verdict.format, verdict.mode, verdict.greyscale]
    return json.dumps(said).encode() + b"\n"


def verdict_of(line: bytes) -> Verdict:
    """The verdict that a line says; ValueError for a line that none of ours would say."""
    said = json.loads(line)
    match said:
        case [str(code), str(sentence)] if code in REFUSALS:
            return REFUSALS[code](sentence)
        case [int(width), int(height), str(kind), str(mode), bool(grey)] if kind in FORMATS:
            if width < 1 or height < 1:
                raise ValueError(f"an image of {width}x{height} pixels")
            known = next(known for known in FORMATS if known == kind)
            return ImageInfo(width, height, known, mode, grey)
        case _:
            raise ValueError(f"a verdict of another form: {cast(object, said)!r:.200}")
