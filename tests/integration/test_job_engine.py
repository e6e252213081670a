"""Jobs on real servers and real workers: lost, killed, cancelled, repeated, and what they make."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psutil
import pytest
import redis

from core.datasets.snapshot import load_items
from core.errors import JobAlreadyFinished
from core.images.recording import image_key
from core.jobs import sweeping
from core.jobs.queue import CeleryQueue, make_celery
from core.jobs.service import cancel_job, retry_job
from core.registry.artifact import manifest_bytes
from tests.integration.job_engine import (
    TINY,
    Engine,
    children_of,
    gone,
    job_engine,
    sha256_of_blob,
    wait_until,
)

TINY_ENCODER = TINY["encoder"]
MIDDLING = 70  # epochs of four steps: long enough to be disturbed, short enough to end
START_SECONDS = 20  # for a worker process on a busy machine
PATIENCE = 40  # for what takes 4 seconds, or the grace of 5 and as much again, on a quiet machine
CHAIN = {
    "pretrain": {**TINY, "epochs": 2},
    "finetune": {"method": "full", "epochs": 2, "batch_size": 16},
    "distill": {"epochs": 2, "batch_size": 32},
}


@pytest.fixture(scope="module")
def engine(
    postgres_url: str, broker_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    with job_engine(postgres_url, broker_url, tmp_path_factory.mktemp("engine")) as running:
        running.start("sweeps")
        yield running


def cancel(engine: Engine, job_id: UUID) -> str:
    with engine.sessions.begin() as session:
        return cancel_job(session, engine.caller, job_id).state


def retry(engine: Engine, job_id: UUID) -> str:
    with engine.sessions.begin() as session:
        return retry_job(session, engine.caller, job_id).state


def hint(engine: Engine, job_id: UUID, times: int) -> None:
    app = make_celery(engine.settings)
    queue = CeleryQueue(app)
    for _ in range(times):
        queue.send(job_id, "cpu")
    app.close()


def wait_for_checkpoint(engine: Engine, job_id: UUID) -> int:
    """The step of a checkpoint that the job has written, not that of the first step."""
    folder = engine.settings.data_dir / "work" / str(job_id)

    def last() -> int:
        return max(
            [int(path.name.removeprefix("step-")) for path in folder.glob("*/step-*")] or [0]
        )

    wait_until(lambda: last() > 1, "a checkpoint", seconds=60)
    return last()


def missing_blob(engine: Engine) -> str:
    """The key of a labelled image that is trained on."""
    digest = engine.snapshot_digest()
    items = load_items(engine.store, digest)
    return next(image_key(item.sha256) for item in items if item.label and item.split == "train")


def flush_broker(engine: Engine) -> None:
    assert engine.settings.broker_url is not None
    client = redis.Redis.from_url(engine.settings.broker_url.get_secret_value())
    client.flushall()
    client.close()


def age_hints(engine: Engine, job_id: UUID) -> None:
    """As if the hint had been sent long ago."""
    engine.set(job_id, hinted_at=datetime.now(UTC) - sweeping.HINT_AGE - timedelta(seconds=1))


def facts(manifest: dict[str, Any]) -> dict[str, Any]:
    """What two runs with the same seed must have in common."""
    return {name: manifest[name] for name in ("architecture", "config", "classes", "files")}


def test_a_chain_makes_three_models_and_the_same_seed_the_same_weights(engine: Engine) -> None:
    engine.running_worker()
    chain = engine.submit("pipeline", **CHAIN)
    again = engine.submit("pretrain", **CHAIN["pretrain"])[0]
    for job_id in [*chain, again]:
        hint(engine, job_id, times=2)  # duplicates, and hints at jobs that still wait
    for job_id in [*chain, again]:
        engine.wait_for(job_id, "succeeded", seconds=120)
    made = [engine.models(job_id) for job_id in [*chain, again]]
    assert [len(models) for models in made] == [1] * 4, "one job, one model"
    encoder, classifier, student, repeated = (models[0] for models in made)
    assert [encoder.kind, classifier.kind, student.kind] == ["encoder"] + ["classifier"] * 2
    assert [encoder.parent_id, classifier.parent_id, student.parent_id] == [
        None,
        encoder.id,
        classifier.id,
    ]
    for job_id in [*chain, again]:
        assert engine.row(job_id).attempt == 1, "duplicate hints do not run a job twice"
        assert not (engine.settings.data_dir / "work" / str(job_id)).exists()
    for model in (encoder, classifier, student):
        _check_manifest(engine, model.manifest, model.manifest_sha256)
    for manifest in (classifier.manifest, student.manifest):
        assert manifest["classes"] == sorted(f"digit {number}" for number in range(10))
        test = manifest["metrics"]["test"]
        assert test["interval_95"][0] <= test["accuracy"] <= test["interval_95"][1]
        assert test["total"] > 0
    assert classifier.manifest["parent"] == {
        "model_id": str(encoder.id),
        "manifest_sha256": encoder.manifest_sha256,
    }
    assert facts(repeated.manifest) == facts(encoder.manifest)


def _check_manifest(engine: Engine, manifest: dict[str, Any], digest: str) -> None:
    assert sha256_of_blob(engine.store, digest) == digest
    assert engine.store.get(f"models/{digest}") == manifest_bytes(manifest)
    for entry in manifest["files"].values():
        assert sha256_of_blob(engine.store, entry["sha256"]) == entry["sha256"]
        assert len(engine.store.get(f"models/{entry['sha256']}")) == entry["bytes"]
    items = load_items(engine.store, manifest["snapshot_sha256"])
    assert len(items) == 160
    assert {item.split for item in items} == {"train", "validation", "test"}


def test_a_killed_process_is_tried_again_until_it_has_crashed(engine: Engine) -> None:
    """One job has an attempt left and resumes; another one has none. Then one is cancelled."""
    engine.running_worker()
    retried, killed = engine.submit_long(), engine.submit_long()
    needing = [engine.submit("finetune", needs=str(job_id))[0] for job_id in (retried, killed)]
    engine.set(killed, max_attempts=1)
    saved = wait_for_checkpoint(engine, retried)
    first_child = engine.child_of(retried)
    first_child.kill()
    wait_until(lambda: bool(children_of(killed)), "the other process")
    engine.child_of(killed).kill()

    row = engine.wait_for(killed, "crashed")
    assert row.error_code == "ProcessDied"
    assert "killed (SIGKILL), most often because" in (row.error_detail or "")
    assert "attempt 1 of 1" in (row.error_detail or "")
    with pytest.raises(JobAlreadyFinished):
        cancel(engine, killed)

    wait_until(lambda: engine.row(retried).attempt == 2, "a second attempt")
    assert gone(first_child)
    progress = engine.wait_for_step(retried, attempt=2).progress or {}
    assert progress["step"] > saved > 1, "it goes on where the checkpoint was"

    child = engine.child_of(retried)
    assert cancel(engine, retried) == "cancelling"
    assert cancel(engine, retried) == "cancelling", "twice is fine"
    engine.wait_for(retried, "cancelled", seconds=PATIENCE)
    assert gone(child)
    assert cancel(engine, retried) == "cancelled"
    for job_id, what in zip(needing, ("was cancelled", "crashed"), strict=True):
        row = engine.row(job_id)
        assert (row.state, row.error_code) == ("failed", "NeededJobFailed")
        assert what in (row.error_detail or "")


def test_a_stage_that_raises_fails_with_words_and_can_be_retried(engine: Engine) -> None:
    engine.running_worker()
    # Finetuning loads labelled images only, in another order of things than pretraining, so
    # the decoded images of the tests above do not serve it.
    lost = engine.submit("finetune", epochs=1, image_size=24, encoder=TINY_ENCODER)[0]
    wild = engine.submit("pretrain", **TINY, epochs=20, learning_rate=1e30, optimizer="sgd")[0]
    needing = engine.submit("distill", needs=str(lost), epochs=1, batch_size=32)[0]
    key = missing_blob(engine)
    data = engine.store.get(key)
    engine.store.delete(key)
    row = engine.wait_for(lost, "failed")
    assert (row.error_code, row.attempt) == ("ImageCorrupt", 1)
    assert re.search(rf"put {key} back .* it is called '\d+\.png'", row.error_detail or "")
    row = engine.wait_for(wild, "failed")
    assert (row.error_code, row.attempt) == ("Diverged", 1)
    assert "smaller learning_rate" in (row.error_detail or "")

    engine.store.put(key, data)
    assert retry(engine, lost) == "queued"
    assert engine.row(needing).state == "waiting"
    assert engine.wait_for(lost, "succeeded").error_code is None
    assert engine.row(needing).state in {"queued", "running"}, "the end woke it"
    cancel(engine, needing)


def test_a_job_outlives_its_workers_and_the_broker(engine: Engine) -> None:
    """A worker is asked to stop, the next one killed, the broker emptied: one model in the end."""
    worker = engine.running_worker()
    job_id = engine.submit_long(epochs=MIDDLING)
    saved = wait_for_checkpoint(engine, job_id)
    child = engine.child_of(job_id)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0
    assert gone(child)
    row = engine.row(job_id)
    assert (row.state, row.attempt, row.worker) == ("queued", 0, None), "handed back, not counted"

    flush_broker(engine)  # the hint is lost
    age_hints(engine, job_id)
    worker = engine.running_worker()
    progress = engine.wait_for_step(job_id).progress or {}
    assert progress["step"] > saved > 1

    child = engine.child_of(job_id)
    worker.kill()
    worker.wait()
    killed_at = time.monotonic()
    ends_within = engine.settings.lease_seconds + START_SECONDS
    wait_until(lambda: gone(child), "the end of the orphan", seconds=ends_within)
    engine.running_worker()
    wait_until(lambda: engine.row(job_id).attempt == 2, "the third worker's claim")
    patience = engine.settings.lease_seconds + 2 * engine.settings.sweep_seconds + START_SECONDS
    assert time.monotonic() - killed_at < patience
    flush_broker(engine)  # under the feet of a worker that listens
    other = engine.submit(**TINY, epochs=1)[0]
    row = engine.wait_for(job_id, "succeeded")
    assert (row.attempt, row.fencing_token, len(engine.models(job_id))) == (2, 3, 1)
    engine.wait_for(other, "succeeded")


def test_a_worker_that_slept_for_longer_than_its_lease_changes_nothing(engine: Engine) -> None:
    """Worker and job are stopped, another worker takes over, and they wake up beside it."""
    worker = engine.running_worker()
    job_id = engine.submit_long(epochs=MIDDLING)
    saved = wait_for_checkpoint(engine, job_id)
    child = engine.child_of(job_id)
    asleep = [psutil.Process(worker.pid), child]
    for process in asleep:
        process.suspend()
    other = engine.start("other")
    try:
        progress = engine.wait_for_step(job_id, attempt=2).progress or {}
        assert progress["step"] > saved
    finally:
        for process in asleep:
            process.resume()
    wait_until(lambda: gone(child), "the end of the late one", seconds=20)
    row = engine.wait_for(job_id, "succeeded")
    assert (row.attempt, len(engine.models(job_id))) == (2, 1)
    assert worker.poll() is None, "the worker that slept works on"
    other.send_signal(signal.SIGTERM)
    assert other.wait(PATIENCE) == 0
    later = engine.submit(**TINY, epochs=1)[0]
    assert engine.wait_for(later, "succeeded").worker is None
