"""What the API and a decoding process say to each other: files there, lines of JSON back.

Behind a line that announces pixels come as many bytes as it says.

No pickle: whoever takes over a decoder through a hole in it can send nothing but such lines.
"""

from __future__ import annotations

import json
import struct
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

from core.errors import ImageInvalid, ImageTooCostly, ImageTooLarge
from core.images.decoding import ImageInfo
from core.images.formats import FORMATS

READY = b"ready\n"
HEAD = struct.Struct("<IH?")
LENGTH = struct.Struct("<Q")
REFUSALS = {kind.__name__: kind for kind in (ImageInvalid, ImageTooLarge, ImageTooCostly)}

WEBP = (b"RIFF", b"WEBP")

Verdict = ImageInfo | ImageInvalid


@dataclass(frozen=True, slots=True)
class Drawing:
    """A small picture of a file, as WebP."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Shape:
    """Height and width of an image whose pixels follow, three bytes each."""

    height: int
    width: int


Answer = Verdict | Drawing | Shape


@dataclass(frozen=True, slots=True)
class Message:
    """Files, and what is asked of each: what it is, its pixels, or its picture.

    That is drawn where `side` is not 0, in a square of so many pixels.
    """

    files: Sequence[bytes]
    side: int = 0
    pixels: bool = False


def packed(message: Message) -> bytes:
    """A message: how many files, what is asked, how long each file is, then their bytes."""
    files = message.files
    lengths = b"".join(LENGTH.pack(len(data)) for data in files)
    return b"".join((HEAD.pack(len(files), message.side, message.pixels), lengths, *files))


def read_message(stream: BinaryIO) -> Message | None:
    """The next message; None when the other side has gone."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    count, side, pixels = HEAD.unpack(head)
    lengths = [LENGTH.unpack(stream.read(LENGTH.size))[0] for _ in range(count)]
    return Message([stream.read(length) for length in lengths], side, pixels)


def line_of(answer: Answer) -> bytes:
    """What became of one file, as a line of JSON."""
    said: list[object]
    if isinstance(answer, ImageInvalid):
        said = [answer.code, str(answer)]
    elif isinstance(answer, Drawing):
        said = [b64encode(answer.data).decode()]
    elif isinstance(answer, Shape):
        said = [answer.height, answer.width]
    else:
        size = answer.width, answer.height
        said = [*size, answer.format, answer.mode, answer.greyscale]
    return json.dumps(said).encode() + b"\n"


def answer_of(line: bytes) -> Answer:
    """The answer that a line says; ValueError for a line that none of ours would say."""
    said = json.loads(line)
    match said:
        case [str(code), str(sentence)] if code in REFUSALS:
            return REFUSALS[code](sentence)
        case [str(text)]:
            data = b64decode(text, validate=True)
            if (data[:4], data[8:12]) != WEBP:
                raise ValueError("a drawing that is not WebP")
            return Drawing(data)
        case [int(height), int(width)] if min(height, width) > 0:
            return Shape(height, width)
        case [int(width), int(height), str(kind), str(mode), bool(grey)] if kind in FORMATS:
            if width < 1 or height < 1:
                raise ValueError(f"an image of {width}x{height} pixels")
            known = next(known for known in FORMATS if known == kind)
            return ImageInfo(width, height, known, mode, grey)
        case _:
            raise ValueError(f"an answer of another form: {cast(object, said)!r:.200}")
