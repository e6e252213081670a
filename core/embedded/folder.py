"""The data folder: its layout, and the lock that lets one instance at a time use it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.errors import EmbeddedServerFailed


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Paths inside a data folder."""

    root: Path

    @property
    def run(self) -> Path:
        """What describes running processes; worth nothing once they are gone."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """One log file a process."""
        return self.root / "logs"

    @property
    def postgres(self) -> Path:
        """The database's files."""
        return self.root / "postgres"


@contextmanager
def claimed_folder(root: Path) -> Iterator[DataFolder]:
    """Make the data folder if needed and hold it for this process until the block ends.

    Raises:
        EmbeddedServerFailed: The folder cannot be written, or another instance holds it.
    """
    folder = DataFolder(root)
    lock = _open_lock(folder)
    try:
        _lock(lock, folder)
        yield folder
    finally:
        os.close(lock)


def _open_lock(folder: DataFolder) -> int:
    try:
        folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in (folder.run, folder.logs):
            part.mkdir(mode=0o700, exist_ok=True)
        if not os.access(folder.root, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
        # Python opens files close-on-exec: children do not hold the lock when this process dies.
        return os.open(folder.run / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EmbeddedServerFailed(
            f"the data folder {folder.root} cannot be written ({error.strerror}); "
            "choose another one with --data-dir"
        ) from error


def _lock(lock: int, folder: DataFolder) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
        raise EmbeddedServerFailed(
            f"another instance (process {holder or 'unknown'}) is using the data folder "
            f"{folder.root}; stop it, or choose another folder with --data-dir"
        ) from None
    except OSError as error:
        raise EmbeddedServerFailed(
            f"the data folder {folder.root} cannot be locked ({error.strerror}); "
            "choose one on a local disk with --data-dir"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
