"""What the job's process says of errors."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from core.errors import BlobNotFound, StoreUnavailable
from core.learning.encoders import WeightsUnavailable
from core.learning.trainer import Diverged
from worker.failure import describe

# The words of the library when save_file writes to a full disk.
TENSORS = SafetensorError(
    "Error while serializing: I/O error: No space left on device (os error 28)"
)


def failed_store(cause: OSError) -> StoreUnavailable:
    error = StoreUnavailable(f"blob folder: put failed: {cause.strerror}")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BlobNotFound("no blob images/0"), "BlobNotFound"),
        (Diverged("try a smaller learning_rate"), "Diverged"),
        (WeightsUnavailable("init: put the file there"), "WeightsUnavailable"),
        (ValueError("odd"), "InternalError"),
        (MemoryError(), "OutOfMemory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "OutOfMemory"),
        (torch.OutOfMemoryError("CUDA out of memory."), "OutOfMemory"),
        (OSError(errno.ENOSPC, "No space left on device"), "DiskFull"),
        (TENSORS, "DiskFull"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "DiskFull"),
        (failed_store(OSError(errno.ENOSPC, "No space left on device")), "DiskFull"),
        (failed_store(OSError(errno.EACCES, "Permission denied")), "StoreUnavailable"),
        (OSError(errno.EACCES, "Permission denied"), "InternalError"),
    ],
)
def test_errors_have_a_code_and_words(error: Exception, code: str) -> None:
    found, detail = describe(error, data_dir=Path("/data/here"))
    assert found == code
    assert len(detail) > 10


def test_a_full_disk_is_named() -> None:
    # Neither a write nor the library that saves tensors says of which file it speaks.
    for error in (OSError(errno.ENOSPC, "No space left on device"), TENSORS):
        assert "/data/here" in describe(error, data_dir=Path("/data/here"))[1]
    store = describe(failed_store(OSError(errno.ENOSPC, "full")), data_dir=Path("/data/here"))[1]
    assert "blob store" in store
    assert "/data/here" not in store
