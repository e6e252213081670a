"""Memory that a training process keeps instead of giving it back after every step."""

from __future__ import annotations

import ctypes

# Names and numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER = -1
TOP_PAD = 64 * 2**20


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, for the rest of this process.

    A training step frees and allocates the same large blocks as the one before it. By default glibc
    returns each of them to the operating system at once, which hands out fresh pages, zeroed one
    by one, a moment later: a quarter of the time of a step on a CPU (docs/benchmarks.md). For
    processes that train and end; the process gets no larger than it was at its largest.

    Returns:
        Whether it did; other C libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, TOP_PAD))
    taken = [mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings]
    return all(taken)
