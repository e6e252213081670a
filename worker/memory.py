"""Was it the kernel that killed a process for want of memory? Its own counters say so."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
VMSTAT = Path("/proc/vmstat")
OOM_SCORE = Path("/proc/self/oom_score_adj")
# The kernel counts a kill before the process is gone: giving back many GB takes it seconds.
REMEMBERED_SECONDS = 10.0
FIRST_TO_GO = 500  # of 1000


class OomWatch:
    """Compares the kernel's count of out-of-memory kills now with that of some seconds ago.

    The count is that of this process's control group, in which its children are as well; where
    there is none, as on a machine without containers, that of the whole machine.
    """

    def __init__(self, counter: Path | None = None) -> None:
        """Take the file with the count; None finds it."""
        self._counter = counter or find_counter()
        self._seen: deque[tuple[float, int]] = deque()
        self.look()

    def look(self) -> None:
        """Remember the count of now; to be called more often than once in ten seconds."""
        now = time.monotonic()
        self._seen.append((now, self._count()))
        while self._seen[0][0] < now - REMEMBERED_SECONDS:
            self._seen.popleft()

    def has_killed(self) -> bool:
        """Whether something was killed for want of memory in the last seconds."""
        return self._count() > self._seen[0][1]

    def _count(self) -> int:
        if self._counter is None:
            return 0
        try:
            lines = self._counter.read_text().splitlines()
        except OSError:
            return 0  # the group was taken away under our feet: nothing is known
        counts = [line.split() for line in lines]
        return sum(int(words[1]) for words in counts if words[0] == "oom_kill" and len(words) == 2)


def find_counter(
    cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS, machine: Path = VMSTAT
) -> Path | None:
    """The file that counts the kills around this process; None on a kernel that has none."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        lines = []
    candidates = []
    for _, controllers, path in lines:
        inside = path.strip("/")
        if "memory" in controllers.split(","):  # version 1
            candidates += _with_root(cgroups / "memory", inside, "memory.oom_control")
        elif not controllers:  # version 2
            candidates += _with_root(cgroups, inside, "memory.events")
    return next((path for path in [*candidates, machine] if _counts(path)), None)


def go_first() -> None:
    """Let the kernel end this process, not the worker or a server, where memory runs out."""
    try:
        OOM_SCORE.write_text(str(FIRST_TO_GO))
    except OSError:
        return  # not Linux, or not allowed here: then the kernel chooses


def _with_root(root: Path, inside: str, name: str) -> list[Path]:
    # In a container the path is often that of the host, while its own group is mounted as root.
    return [root / inside / name, root / name]


def _counts(path: Path) -> bool:
    try:
        return any(line.startswith("oom_kill ") for line in path.read_text().splitlines())
    except OSError:
        return False
