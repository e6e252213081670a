"""One request's id is on the lines of the API, of the worker and of the job's process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from api.main import create_app
from core.auth import create_key
from core.db.models import Job
from core.jobs.logs import read_lines
from core.telemetry import bound, carried, current
from tests.integration.job_engine import TINY, Engine, job_engine, wait_until

REQUEST = "from-the-gateway-7"
IDS = ("job_id", "project_id", "request_id")


@pytest.fixture(scope="module")
def engine(
    postgres_url: str, broker_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    with job_engine(postgres_url, broker_url, tmp_path_factory.mktemp("ids")) as running:
        changes = {"auth_mode": "keys", "log_format": "json"}
        running.settings = running.settings.model_copy(update=changes)
        running.start("jobs")
        yield running


def order(engine: Engine, **body: Any) -> UUID:
    """The job that a request with the id REQUEST has made."""
    with engine.sessions.begin() as session:
        _, secret = create_key(session, project="engine", name="k", scopes=["read", "write"])
    with TestClient(create_app(engine.settings)) as client:
        answer = client.post(
            "/jobs",
            json={**body, "dataset_id": str(engine.dataset_id)},
            headers={"Authorization": f"Bearer {secret}", "X-Request-ID": REQUEST},
        )
    assert answer.status_code == 202, answer.text
    return UUID(answer.json()["id"])


def parsed(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def read(path: Path) -> list[dict[str, Any]]:
    return parsed(path.read_text())


def test_all_lines_of_a_job_carry_the_same_three_ids(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = order(engine, stage="pretrain", **TINY, epochs=1)
    engine.wait_for(job_id, "succeeded")
    expected = dict(zip(IDS, (str(job_id), str(engine.caller.project_id), REQUEST), strict=True))

    asked = [line for line in parsed(capsys.readouterr().err) if line.get("path") == "/jobs"]
    assert [line["request_id"] for line in asked] == [REQUEST]

    def worker_lines() -> list[dict[str, Any]]:
        found = read(engine.folder / "jobs.log")
        return [line for line in found if line.get("job_id") == str(job_id)]

    # The process has written the end of its job before it ends itself.
    wait_until(lambda: worker_lines()[-1]["event"] == "job process ended", "the worker's last line")
    worker = worker_lines()
    assert worker[0]["event"] == "job started"
    child = read(engine.settings.data_dir / "logs" / "jobs" / f"{job_id}.log")
    assert child[-1]["event"] == "job succeeded"
    for line in [*worker, *child]:
        assert {name: line.get(name) for name in IDS} == expected, line

    with engine.sessions.begin() as session:
        shown = read_lines(session, job_id, after=0, attempt=None, limit=100)
    assert "job succeeded" in [line.text for line in shown]
    assert not any(set(IDS) & set(line.fields) for line in shown), "its owner asked for the job"


def test_every_job_of_a_chain_comes_from_the_one_request(engine: Engine) -> None:
    last = order(engine, stage="pipeline", pretrain={**TINY, "epochs": 1})
    with engine.sessions.begin() as session:
        chain = select(Job.pipeline_id).where(Job.id == last).scalar_subquery()
        ids = session.scalars(select(Job.request_id).where(Job.pipeline_id == chain)).all()
    assert ids == [REQUEST] * 3


def test_a_job_without_a_request_has_the_other_ids(engine: Engine) -> None:
    [job_id] = engine.submit("pretrain", **TINY, epochs=1)
    engine.wait_for(job_id, "succeeded")
    for line in read(engine.settings.data_dir / "logs" / "jobs" / f"{job_id}.log"):
        assert line["job_id"] == str(job_id)
        assert line["project_id"] == str(engine.caller.project_id)
        assert "request_id" not in line


def test_threads_carry_what_is_bound_where_they_are_made() -> None:
    seen: list[str | None] = []

    def look() -> None:
        seen.append(current("request_id"))

    with bound(request_id=REQUEST):
        threads = [threading.Thread(target=work) for work in (look, carried(look))]
    for thread in threads:
        thread.start()
        thread.join()
    assert seen == [None, REQUEST]
