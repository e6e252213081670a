"""How many threads an operation of torch uses, which every thread says for itself."""

from __future__ import annotations

import torch


def use_threads(count: int) -> None:
    """Operations that the calling thread starts run on so many threads from here on.

    `torch.set_num_threads` alone may not last in a new thread: the first operation of a thread sets
    its number to the one that any thread has asked for last. A thread that was to compute alone
    then has helpers, and once there are more of those than cores, libgomp lets all sleep whenever
    they wait, also the helpers of other threads: forward and backward took 37 ms in place of 28
    (docs/benchmarks-crops.md).
    """
    torch.get_num_threads()  # the first look, which sets the number to that of the process
    torch.set_num_threads(count)
