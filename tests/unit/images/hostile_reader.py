"""Reads hostile files and archives as the service would: `python -m … FOLDER`, prints JSON.

A process of its own, so that its peak of memory is that of the reading alone. With a second word,
`served`, files are read as the API does it for /predict, and time and memory are those of the API.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from core.errors import FewlabelsError, ImageInvalid
from core.images.archives import ArchiveLimits, members
from core.images.decoding import decode
from core.images.pool import DecodeLimits, DecodePool
from core.images.reader import ImageReader

MAX_BYTES, MAX_PIXELS = 32 * 2**20, 50_000_000  # as the service has them by itself
LIMITS = ArchiveLimits(
    max_entries=10_000, max_bytes=64 * 2**20, max_ratio=200.0, max_file_bytes=MAX_BYTES
)


def codes(path: Path) -> list[str]:
    """The refusals of a file or, by its suffix, of an archive and what is in it; else `good`."""
    if path.suffix != ".archive":
        return [verdict(path.read_bytes())]
    found = []
    try:
        with path.open("rb") as stream:
            for member in members(stream, limits=LIMITS, scratch=path.parent):
                code = member.rejected.code if member.rejected else None
                found.append(code or verdict(member.data or b""))
    except FewlabelsError as error:
        found.append(error.code)
    return found


def direct(data: bytes) -> object:
    return decode(data, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)


def verdict(data: bytes, read: Callable[[bytes], object] = direct) -> str:
    try:
        read(data)
    except ImageInvalid as error:
        return error.code
    return "good"


def main() -> None:
    found = {}
    served = "served" in sys.argv
    limits = DecodeLimits(max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS, seconds=10.0, memory_mb=1536)
    with closing(ImageReader(DecodePool(limits, processes=1))) as reader:
        for path in sorted(Path(sys.argv[1]).iterdir()):
            if served and path.suffix == ".archive":
                continue
            begin = time.process_time()  # on one thread, so it is the time on a machine at rest
            told = [verdict(path.read_bytes(), reader.read)] if served else codes(path)
            found[path.name] = (told, time.process_time() - begin)
    print(json.dumps({"found": found, "peak_mb": peak_mb()}))  # noqa: T201


def peak_mb() -> float:
    # Not `ru_maxrss`, which a process inherits from the one that started it.
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
