"""Jobs by state and stage as metrics, and none while the database is away."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from core.jobs import census
from core.jobs.census import Census
from tests.jobs_database import JobsDatabase


def values(found: Census) -> dict[str, float]:
    text = found.exposition().decode()
    return {
        " ".join([sample.name, *sorted(sample.labels.values())]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_jobs_are_counted_and_the_count_is_kept_for_seconds(
    database: JobsDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Census(database.sessions)
    before = values(counting)
    database.chain(2)
    assert values(counting) == before
    monkeypatch.setattr(census, "FRESH_SECONDS", 0.0)
    after = values(counting)
    for name in ("fewlabels_jobs pretrain queued", "fewlabels_jobs pretrain waiting"):
        assert after[name] == before.get(name, 0) + 1
    assert after["fewlabels_job_queue_size"] == after["fewlabels_jobs pretrain queued"]
    assert after["fewlabels_job_queue_oldest_seconds"] > 0


def test_a_database_that_is_away_leaves_a_gap() -> None:
    nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    assert Census(sessionmaker(nowhere)).exposition() == b""
