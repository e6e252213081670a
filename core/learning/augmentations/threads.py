"""Parts of a batch on threads of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def on_threads(work: Callable[[slice], None], parts: Iterable[slice]) -> None:
    """Call `work` with every part, on as many threads as torch may use on the CPU.

    For work that lets go of the interpreter's lock for long, and leaves torch's operations alone:
    threads that need the lock for every short operation wait for each other, and a large one
    would start helpers for each of them.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        for part in parts:
            work(part)
        return
    for _ in _pool(threads).map(work, parts):
        pass


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="augment")
