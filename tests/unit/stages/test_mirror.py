"""Checkpoints in the blob store: another machine goes on from them, and none is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
import torch

from core import blobs
from core.errors import JobCancelled, LeaseLost
from core.jobs import checkpoints, leases
from core.jobs.leases import Claim
from core.jobs.service import fail, retry_job
from core.learning.checkpoint import Checkpoint, TrainingState
from core.stages.mirror import CheckpointMirror
from core.storage.folder import FolderStore
from tests.jobs_database import JobsDatabase, jobs_database


@pytest.fixture(scope="module")
def database(postgres_url: str) -> Iterator[JobsDatabase]:
    with jobs_database(postgres_url) as database:
        yield database


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    store = FolderStore(tmp_path / "blobs")
    store.prepare()
    return store


def claim(database: JobsDatabase, job_id: UUID) -> Claim:
    with database.sessions.begin() as session:
        held = leases.claim(session, job_id, worker="w", lease_seconds=60)
    assert held is not None
    return held


def mirror_of(
    database: JobsDatabase, store: FolderStore, held: Claim, machine: Path
) -> CheckpointMirror:
    folder = machine / "work" / str(held.job_id) / "checkpoint-1-0"
    return CheckpointMirror(held, folder, sessions=database.sessions, store=store)


def part_of(held: Claim, machine: Path, part: str = "") -> Checkpoint:
    folder = machine / "work" / str(held.job_id) / "checkpoint-1-0" / part
    return Checkpoint(folder, seconds=60, fingerprint={"seed": 1})


def save(checkpoint: Checkpoint, step: int) -> None:
    tensors = {"weight": torch.full((3,), float(step))}
    checkpoint.save(TrainingState(step=step, tensors=tensors, scalars={"notes": {"step": step}}))


def copy(mirror: CheckpointMirror) -> None:
    with pytest.raises(JobCancelled), mirror.copying():
        raise JobCancelled("asked to stop")


def kept(store: FolderStore) -> list[str]:
    return list(store.keys(blobs.CHECKPOINTS))


def test_another_machine_goes_on_from_the_copy(
    database: JobsDatabase, store: FolderStore, tmp_path: Path
) -> None:
    [job_id] = database.chain()
    first = claim(database, job_id)
    for part, step in (("", 7), ("encoder", 3)):
        save(part_of(first, tmp_path / "here", part), step)
    copy(mirror_of(database, store, first, tmp_path / "here"))
    with database.sessions.begin() as session:
        leases.give_back(session, first)

    second = claim(database, job_id)
    mirror_of(database, store, second, tmp_path / "there").restore()
    for part, step in (("", 7), ("encoder", 3)):
        state = part_of(second, tmp_path / "there", part).load()
        assert state is not None
        assert (state.step, state.scalars["notes"]) == (step, {"step": step})
        assert torch.equal(state.tensors["weight"], torch.full((3,), float(step)))


def test_what_is_further_stays_and_what_is_behind_is_replaced(
    database: JobsDatabase, store: FolderStore, tmp_path: Path
) -> None:
    [job_id] = database.chain()
    held = claim(database, job_id)
    save(part_of(held, tmp_path / "there"), 5)
    copy(mirror_of(database, store, held, tmp_path / "there"))
    for step, expected in ((9, 9), (2, 5)):
        here = tmp_path / f"here {step}"
        save(part_of(held, here), step)
        mirror_of(database, store, held, here).restore()
        state = part_of(held, here).load()
        assert state is not None
        assert state.step == expected


@pytest.mark.parametrize("damage", ["cut short", "gone"])
def test_a_copy_that_cannot_be_used_costs_its_work_and_nothing_more(
    database: JobsDatabase, store: FolderStore, tmp_path: Path, damage: str
) -> None:
    [job_id] = database.chain()
    held = claim(database, job_id)
    save(part_of(held, tmp_path / "there"), 5)
    copy(mirror_of(database, store, held, tmp_path / "there"))
    [key] = kept(store)
    path = tmp_path / "blobs" / blobs.CHECKPOINTS / key.split("/")[1][:2] / key.split("/")[1]
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-600])

    mirror = mirror_of(database, store, held, tmp_path / "here")
    mirror.restore()
    assert part_of(held, tmp_path / "here").load() is None
    save(part_of(held, tmp_path / "here"), 2)  # fewer steps than the copy that is lost
    copy(mirror)
    last = mirror_of(database, store, held, tmp_path / "elsewhere")
    last.restore()
    state = part_of(held, tmp_path / "elsewhere").load()
    assert state is not None
    assert state.step == 2


def test_a_new_copy_replaces_the_old_one_and_the_end_deletes_it(
    database: JobsDatabase, store: FolderStore, tmp_path: Path
) -> None:
    [job_id] = database.chain()
    held = claim(database, job_id)
    for step in (1, 2):
        save(part_of(held, tmp_path), step)
        copy(mirror := mirror_of(database, store, held, tmp_path))
        assert len(kept(store)) == 1
    assert list(blobs.orphans(database.sessions, store)) == []
    mirror.forget()
    assert kept(store) == []


def test_who_lost_the_lease_writes_no_checkpoint(
    database: JobsDatabase, store: FolderStore, tmp_path: Path
) -> None:
    [job_id] = database.chain()
    old = claim(database, job_id)
    save(part_of(old, tmp_path / "old"), 5)
    database.set(job_id, state="queued", lease_expires_at=None)
    new = claim(database, job_id)
    save(part_of(new, tmp_path / "new"), 6)
    copy(mirror_of(database, store, new, tmp_path / "new"))
    copy(mirror_of(database, store, old, tmp_path / "old"))
    with database.sessions.begin() as session:
        [row] = checkpoints.recorded(session, job_id)
        assert (row.step, row.token) == (6, new.token)
    with pytest.raises(LeaseLost), database.sessions.begin() as session:
        checkpoints.record(session, old, folder="x", step=9, digest="0" * 64, size=1)
    # The late one's bytes have a mark, and go when their time of grace is over.
    assert len(kept(store)) == 2
    blobs.sweep(database.sessions, store, grace=timedelta(seconds=-1))
    assert kept(store) == [checkpoints.checkpoint_key(row.sha256)]


def test_a_retry_starts_where_it_is_told_to(
    database: JobsDatabase, store: FolderStore, tmp_path: Path
) -> None:
    [job_id] = database.chain()
    held = claim(database, job_id)
    save(part_of(held, tmp_path), 5)
    copy(mirror_of(database, store, held, tmp_path))
    for from_beginning, left, beginning in ((False, 1, 0), (True, 0, 1)):
        with database.sessions.begin() as session:
            assert fail(session, job_id, held.token, code="Failed", detail="it did")
        with database.sessions.begin() as session:
            retry_job(session, database.caller, job_id, from_beginning=from_beginning)
        held = claim(database, job_id)
        with database.sessions.begin() as session:
            assert len(checkpoints.recorded(session, job_id)) == left
        assert database.row(job_id).beginning == beginning


def test_the_sweep_forgets_what_no_retry_will_need(
    database: JobsDatabase, store: FolderStore, tmp_path: Path
) -> None:
    [job_id] = database.chain()
    held = claim(database, job_id)
    save(part_of(held, tmp_path), 5)
    copy(mirror_of(database, store, held, tmp_path))
    with database.sessions.begin() as session:
        assert fail(session, job_id, held.token, code="Failed", detail="it did")
        assert checkpoints.sweep(session, keep=timedelta(hours=1)) == 0
        assert checkpoints.sweep(session, keep=timedelta(seconds=-1)) == 1
        assert checkpoints.recorded(session, job_id) == []
    blobs.sweep(database.sessions, store, grace=timedelta(seconds=-1))
    assert kept(store) == []
