"""Parts of a batch on threads of their own, each of which computes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier, Lock

import torch

from core.learning.intraop import use_threads

_STARTING = Lock()


def on_threads(work: Callable[[slice], None], parts: Iterable[slice], *, device: str) -> None:
    """Call `work` with every part, on as many threads as torch may use on the CPU.

    Torch's own threads meet at the end of every operation. These operations are short, so where
    something else needs a core too, much time is spent on waiting: at 32 px half of it (measured:
    docs/benchmarks-crops.md). Here a thread meets the others once.
    """
    threads = torch.get_num_threads() if device == "cpu" else 1
    if threads == 1:
        for part in parts:
            work(part)
        return
    with _STARTING:
        pool = _pool(threads)
    for _ in pool.map(work, parts):
        pass


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="augment")
    before = torch.get_num_threads()
    everybody = Barrier(threads)

    def alone(_: int) -> None:
        use_threads(1)
        everybody.wait()

    list(pool.map(alone, range(threads)))
    # The call is for the calling thread, but it also sets what threads to come start with.
    torch.set_num_threads(before)
    return pool
