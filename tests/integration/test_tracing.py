"""One trace over API, worker and the process of a job, as a real collector gets it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from core.auth import create_key
from core.embedded.commands import api_command, api_environment
from core.jobs.service import cancel_job
from core.tracing.otlp import endpoint_of
from tests.conftest import free_port
from tests.integration.job_engine import TINY, Engine, job_engine, wait_until
from tests.otlp_collector import Collector, Seen, collecting

NOBODY = "http://127.0.0.1:1"  # a port that refuses


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def engine(
    postgres_url: str,
    broker_url: str,
    collector: Collector,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    with job_engine(postgres_url, broker_url, tmp_path_factory.mktemp("traces")) as running:
        changes = {
            "auth_mode": "keys",
            "log_format": "json",
            "otlp_endpoint": collector.endpoint,
        }
        running.settings = running.settings.model_copy(update=changes)
        running.start("jobs")
        yield running


@pytest.fixture(scope="module")
def api(engine: Engine) -> Iterator[httpx2.Client]:
    """A client of an API process."""
    settings = engine.settings.model_copy(update={"port": free_port()})
    with engine.sessions.begin() as session:
        _, key = create_key(session, project="engine", name="k", scopes=["read", "write"])
    with (engine.folder / "api.log").open("wb") as log:
        process = subprocess.Popen(
            api_command(settings),
            cwd=engine.folder,
            env=api_environment(settings),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx2.Client(
            base_url=f"http://127.0.0.1:{settings.port}", headers={"authorization": f"Bearer {key}"}
        ) as client:
            wait_until(
                lambda: answers(client), "the API", show=(engine.folder / "api.log").read_text
            )
            yield client
    finally:
        process.terminate()
        process.wait(20)


def answers(client: httpx2.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx2.ConnectError:
        return False


def order(
    engine: Engine, client: httpx2.Client, trace_id: str, *, flag: str = "01", **body: Any
) -> UUID:
    """The job of a caller that is in a trace already."""
    answer = client.post(
        "/jobs",
        json={**body, "dataset_id": str(engine.dataset_id)},
        headers={"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-{flag}"},
    )
    assert answer.status_code == 202, answer.text
    return UUID(answer.json()["id"])


def one(spans: list[Seen], name: str) -> Seen:
    [found] = [span for span in spans if span.name == name]
    return found


def wait_for_runs(collector: Collector, trace_id: str, count: int) -> list[Seen]:
    """The spans of a trace once so many attempts have ended: theirs are the last to end."""

    def there() -> bool:
        return [s.name for s in collector.of_trace(trace_id)].count("run job") == count

    wait_until(there, f"{count} spans of attempts")
    return collector.of_trace(trace_id)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines() if text.startswith("{")]


def test_one_trace_goes_through_the_row_to_the_process_of_the_job(
    engine: Engine, api: httpx2.Client, collector: Collector
) -> None:
    trace_id = secrets.token_hex(16)
    job_id = order(engine, api, trace_id, stage="pretrain", **TINY, epochs=3)
    engine.wait_for(job_id, "succeeded")
    spans = wait_for_runs(collector, trace_id, 1)

    request, run, process = (one(spans, name) for name in ("POST /jobs", "run job", "job process"))
    claim, stage, stored = (
        one(spans, name) for name in ("claim", "stage pretrain", "store result")
    )
    training = one(spans, "training")
    services = [span.service for span in (request, run, process)]
    assert services == ["fewlabels-api", "fewlabels-worker", "fewlabels-job"]
    assert run.parent_id == request.span_id
    assert [claim.parent_id, process.parent_id] == [run.span_id] * 2
    assert [stage.parent_id, stored.parent_id] == [process.span_id] * 2
    assert training.parent_id == stage.span_id
    assert run.seconds > process.seconds > stage.seconds > training.seconds > 0
    assert [span.error for span in spans] == [None] * len(spans)
    assert run.facts["fewlabels.job_id"] == str(job_id)
    assert run.facts["fewlabels.project_id"] == str(engine.caller.project_id)
    assert run.facts["fewlabels.attempt"] == 1
    assert not any("healthz" in span.name for span in collector.spans)
    log = engine.settings.data_dir / "logs" / "jobs" / f"{job_id}.log"
    for path in (engine.folder / "api.log", engine.folder / "jobs.log", log):
        assert trace_id in {line.get("trace_id") for line in lines(path)}, path.name


def test_what_was_not_to_be_recorded_is_not(
    engine: Engine, api: httpx2.Client, collector: Collector
) -> None:
    hidden, shown = secrets.token_hex(16), secrets.token_hex(16)
    body = {"stage": "pretrain", **TINY, "epochs": 1}
    for trace_id, flag in ((hidden, "00"), (shown, "01")):
        engine.wait_for(order(engine, api, trace_id, flag=flag, **body), "succeeded")
    wait_for_runs(collector, shown, 1)
    assert collector.of_trace(hidden) == []


def test_a_killed_attempt_is_an_error_in_the_trace_of_the_next(
    engine: Engine, api: httpx2.Client, collector: Collector
) -> None:
    trace_id = secrets.token_hex(16)
    job_id = order(engine, api, trace_id, stage="pretrain", **TINY, epochs=100_000)
    engine.wait_for_step(job_id)
    engine.child_of(job_id).kill()
    engine.wait_for_step(job_id, attempt=2)
    with engine.sessions.begin() as session:
        cancel_job(session, engine.caller, job_id)
    engine.wait_for(job_id, "cancelled")
    runs = [s for s in wait_for_runs(collector, trace_id, 2) if s.name == "run job"]
    first, second = sorted(runs, key=lambda span: span.facts["fewlabels.attempt"])
    assert "SIGKILL" in (first.error or "")
    assert second.error is None


def test_what_is_left_is_sent_at_the_end_of_a_process(
    engine: Engine, api: httpx2.Client, collector: Collector
) -> None:
    trace_id = secrets.token_hex(16)
    worker = engine.running_worker()
    job_id = order(engine, api, trace_id, stage="pretrain", **TINY, epochs=1)
    engine.wait_for(job_id, "succeeded")
    worker.terminate()
    assert worker.wait(20) == 0
    assert one(collector.of_trace(trace_id), "run job").error is None


def test_jobs_end_well_while_the_collector_is_away(engine: Engine) -> None:
    engine.running_worker().terminate()
    engine.workers["jobs"].wait(20)
    worker = engine.start("jobs", otlp_endpoint=NOBODY)
    [job_id] = engine.submit("pretrain", **TINY, epochs=1)
    engine.wait_for(job_id, "succeeded")
    worker.terminate()
    assert worker.wait(30) == 0
    assert "Failed to export" in (engine.folder / "jobs.log").read_text()
    log = engine.settings.data_dir / "logs" / "jobs" / f"{job_id}.log"
    assert "export" not in log.read_text(), "the job's owner cannot mend it"


def run_command(*, lines: str = "", endpoint: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; {lines}\nfrom core.cli import app; app(['worker'])"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "FEWLABELS_OTLP_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )


def test_without_the_extra_every_command_says_what_to_install() -> None:
    done = run_command(lines="sys.modules['opentelemetry'] = None", endpoint=NOBODY)
    assert done.returncode == 1
    assert "FEWLABELS_OTLP_ENDPOINT" in done.stderr
    assert "pip install 'fewlabels[otel]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_none_is_refused() -> None:
    done = run_command(endpoint="collector:4318")
    assert done.returncode == 1
    assert "allowed is an address as http://collector:4318" in done.stderr


def test_an_address_with_a_key_is_refused_and_not_repeated() -> None:
    done = run_command(endpoint="https://me:s3cr3t@collector:4318")
    assert done.returncode == 1
    assert "OTEL_EXPORTER_OTLP_HEADERS" in done.stderr
    assert "s3cr3t" not in done.stderr


@pytest.mark.parametrize("given", ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"])
def test_the_path_of_the_protocol_is_added(engine: Engine, given: str) -> None:
    settings = engine.settings.model_copy(update={"otlp_endpoint": given})
    assert endpoint_of(settings) == "http://c:4318/v1/traces"
