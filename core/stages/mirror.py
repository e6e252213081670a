"""A job's checkpoints in the blob store, so that a worker on another machine goes on from them.

Copied by a thread of its own: training does not wait for the store, and processes that share a
training need not know. The copy is a tar archive with the job and its token in it, so that no other
job ever has the same bytes and those that are replaced can be deleted at once.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from core import blobs
from core.db.scheduling import JobCheckpoint
from core.errors import BlobNotFound, JobCancelled, LeaseLost, StoreUnavailable
from core.jobs import checkpoints
from core.jobs.checkpoints import checkpoint_key
from core.jobs.leases import Claim
from core.jobs.outages import DATABASE_AWAY
from core.learning.trainer import Stopped
from core.registry.artifact import sha256_of
from core.storage.store import BlobStore
from core.telemetry import carried, logger

log = logger(__name__)
LOOK_SECONDS = 1.0
OWNER = "owner"


class CheckpointMirror:
    """Copies what a run saves, and puts back what an earlier attempt copied.

    Args:
        held: The right to write.
        checkpoint_dir: Where the run keeps its checkpoints, in folders `step-N` at any depth.
        sessions: Where it is recorded which copy is the latest.
        store: Where the copies lie.
    """

    def __init__(
        self,
        held: Claim,
        checkpoint_dir: Path,
        *,
        sessions: sessionmaker[Session],
        store: BlobStore,
    ) -> None:
        self._held = held
        self._root = checkpoint_dir
        self._sessions = sessions
        self._store = store
        self._copied: dict[str, int] = {}
        self._lost = False
        self._done = threading.Event()

    def restore(self) -> None:
        """Put copies into the run's folder that are ahead of what this machine has.

        Raises:
            StoreUnavailable, OperationalError: The store or the database stayed away.
        """
        with self._sessions.begin() as session:
            rows = checkpoints.recorded(session, self._held.job_id)
        for row in rows:
            self._copied[row.folder] = row.step
            target = self._root.parent / row.folder
            mine = target == self._root or self._root in target.parents
            if mine and _latest(target) < row.step:
                self._fetch(row, target)

    @contextmanager
    def copying(self) -> Iterator[None]:
        """Copy new checkpoints while the block runs, and once more where it is asked to stop."""
        thread = threading.Thread(target=carried(self._keep_copying), name="mirror", daemon=True)
        thread.start()
        asked = False
        try:
            yield
        except (JobCancelled, Stopped):
            asked = True
            raise
        finally:
            self._done.set()
            thread.join()
            if asked:
                self._copy_new()

    def forget(self) -> None:
        """Delete all copies: the job has ended well."""
        with self._sessions.begin() as session:
            keys = checkpoints.forget(session, [self._held.job_id])
        blobs.discard(self._sessions, self._store, keys)

    def _keep_copying(self) -> None:
        while not self._done.wait(LOOK_SECONDS):
            self._copy_new()

    def _copy_new(self) -> None:
        if self._lost:
            return
        found = {path.parent for path in self._root.glob("**/step-*")}
        for folder in sorted(found):
            name, step = str(folder.relative_to(self._root.parent)), _latest(folder)
            if step <= self._copied.get(name, -1):
                continue
            try:
                self._copy(folder / f"step-{step:012d}", name, step)
            except LeaseLost:
                self._lost = True  # the worker sees it as well and ends this process
                return
            except FileNotFoundError:
                continue  # a newer one has replaced it
            except (StoreUnavailable, OSError, *DATABASE_AWAY) as error:
                # Training goes on with what this machine has; the next look tries again.
                log.warning("a checkpoint was not copied", step=step, error=str(error))
                continue
            self._copied[name] = step

    def _copy(self, saved: Path, name: str, step: int) -> None:
        with tempfile.TemporaryDirectory(dir=self._root.parent, prefix="copy-") as scratch:
            linked = Path(scratch) / saved.name
            # Links stay when the run replaces its checkpoint meanwhile.
            shutil.copytree(saved, linked, copy_function=os.link)
            archive = Path(scratch) / "archive"
            self._pack(linked, archive)
            digest, size = sha256_of(archive), archive.stat().st_size
            with self._sessions.begin() as session:
                blobs.mark(session, [checkpoint_key(digest)])
            self._store.put_file(checkpoint_key(digest), archive)
        with self._sessions.begin() as session:
            replaced = checkpoints.record(
                session, self._held, folder=name, step=step, digest=digest, size=size
            )
        log.info("checkpoint copied", step=step, bytes=size)
        if replaced is not None:
            blobs.discard(self._sessions, self._store, [replaced])

    def _pack(self, saved: Path, archive: Path) -> None:
        owner = f"{self._held.job_id} {self._held.token}".encode()
        with tarfile.open(archive, "w") as tar:
            head = tarfile.TarInfo(OWNER)
            head.size = len(owner)
            tar.addfile(head, io.BytesIO(owner))
            for path in sorted(saved.iterdir()):
                tar.add(path, arcname=path.name, recursive=False)

    def _fetch(self, row: JobCheckpoint, target: Path) -> None:
        self._root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._root.parent, prefix="copy-") as scratch:
            archive, unpacked = Path(scratch) / "archive", Path(scratch) / "unpacked"
            try:
                self._store.fetch(checkpoint_key(row.sha256), archive)
            except BlobNotFound as error:
                self._give_up(row, f"it is gone: {error}")
                return
            if sha256_of(archive) != row.sha256:
                self._give_up(row, "its bytes are damaged")
                return
            with tarfile.open(archive) as tar:
                tar.extractall(unpacked, filter="data")
            (unpacked / OWNER).unlink()
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            unpacked.rename(target / f"step-{row.step:012d}")
        log.info("checkpoint fetched", step=row.step, bytes=row.byte_count)

    def _give_up(self, row: JobCheckpoint, why: str) -> None:
        """Go on from what this machine has, and copy that as soon as there is more."""
        log.error("a checkpoint cannot be used", step=row.step, reason=why)
        del self._copied[row.folder]


def _latest(folder: Path) -> int:
    """Steps of the latest checkpoint in the folder; −1 when there is none."""
    return max((int(path.name.removeprefix("step-")) for path in folder.glob("step-*")), default=-1)
