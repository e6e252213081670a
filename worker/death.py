"""What the end of a job's process means, in words for the job's owner."""

from __future__ import annotations

import signal

from core.jobs.leases import Death

LESS_MEMORY = "try a smaller micro_batch_size (pretrain), batch_size, image_size or encoder"


def death_of(code: int, *, for_memory: bool) -> Death:
    """Why a process with this exit code, or killed by the signal -code, has no result.

    Args:
        code: As subprocess tells it.
        for_memory: The kernel killed it, since memory ran out.
    """
    if for_memory:
        said = f"the machine ran out of memory and its kernel ended the job: {LESS_MEMORY}"
        return Death(said, code="OutOfMemory", final=True)
    if code == 0:
        return Death("the process ended without a result")
    if code > 0:
        return Death(f"the process ended with exit code {code}; its log has the reason")
    names = {number.value: number.name for number in signal.Signals}
    name = names.get(-code, f"signal {-code}")
    if name == "SIGKILL":
        said = "the process was killed (SIGKILL), most often because the machine ran out of memory"
        return Death(f"{said}: {LESS_MEMORY}")
    if name == "SIGBUS":
        said = "the process died of SIGBUS, most often because the disk of FEWLABELS_DATA_DIR is "
        return Death(f"{said}full; make room there")
    return Death(f"the process died of {name}")
