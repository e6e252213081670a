"""Freed memory stays with a process that trains."""

from __future__ import annotations

import subprocess
import sys

ALLOCATE = """
import resource, sys, torch
from core.learning.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()


def faults() -> int:
    for _ in range(20):
        torch.zeros(2**24)  # 64 MB, every page of it written
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


before = faults()
print(faults() - before)
"""


def page_faults(how: str) -> int:
    command = [sys.executable, "-c", ALLOCATE, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_the_same_pages_are_used_again() -> None:
    assert page_faults("keep") * 10 < page_faults("give back")
