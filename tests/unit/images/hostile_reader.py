"""Reads hostile files and archives as the service would: `python -m … FOLDER`, prints JSON.

A process of its own, so that its peak of memory is that of the reading alone.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from core.errors import FewlabelsError, ImageInvalid
from core.images.archives import ArchiveLimits, members
from core.images.decoding import decode

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


def verdict(data: bytes) -> str:
    try:
        decode(data, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
    except ImageInvalid as error:
        return error.code
    return "good"


def main() -> None:
    found = {}
    for path in sorted(Path(sys.argv[1]).iterdir()):
        begin = time.process_time()  # on one thread, so it is the time on a machine at rest
        found[path.name] = (codes(path), time.process_time() - begin)
    print(json.dumps({"found": found, "peak_mb": peak_mb()}))  # noqa: T201


def peak_mb() -> float:
    # Not `ru_maxrss`, which a process inherits from the one that started it.
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
