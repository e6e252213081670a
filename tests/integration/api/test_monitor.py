"""`fewlabels jobs` over a real service: what it prints, and its exit codes."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from core.cli import app
from core.config import Settings
from core.jobs.leases import Claim
from core.jobs.states import JobState, move
from tests.integration.api.jobs_under_way import begin, end, served, step

STEPS = 20


@pytest.fixture(scope="module")
def url(settings: Settings) -> Iterator[str]:
    """A service whose streams close all the time."""
    with served(settings.model_copy(update={"stream_seconds": 0.7})) as (found, _):
        yield found


@pytest.fixture
def held(client: Any, add_dataset: Callable[..., str], session: Callable[[], Session]) -> Claim:
    return begin(client, add_dataset, session)


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["jobs", *arguments, "--url", url])


def later(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_job_is_followed_to_its_failure_over_streams_that_close(
    url: str, held: Claim, session: Callable[[], Session]
) -> None:
    def train() -> None:
        for number in range(1, STEPS + 1):
            step(session, held, number, steps=STEPS, loss=1.0 / number, phase="training")
            time.sleep(0.1)
        end(session, held)

    step(session, held, 0, steps=STEPS, phase="preparing")
    work = later(train)
    result = run(url, "watch", str(held.job_id), "--json")
    work.join()
    assert result.exit_code == 1
    told = [json.loads(line) for line in result.stdout.splitlines()]
    steps = [event["step"] for event in told if event["event"] == "progress"]
    assert steps == list(range(steps[0], STEPS + 1))
    assert told[-1]["error"] == {"code": "SpecInvalid", "detail": "because"}

    again = run(url, "watch", str(held.job_id))
    assert again.exit_code == 1
    assert re.search(r"failed in \d:\d\d: SpecInvalid: because", again.stdout)


@pytest.mark.parametrize(("target", "code"), [(JobState.SUCCEEDED, 0), (JobState.CANCELLED, 3)])
def test_the_exit_code_is_the_result(
    url: str, held: Claim, session: Callable[[], Session], target: JobState, code: int
) -> None:
    with session() as opened, opened.begin():
        if target == JobState.CANCELLED:
            assert move(opened, held.job_id, JobState.RUNNING, JobState.CANCELLING)
            assert move(opened, held.job_id, JobState.CANCELLING, target)
        else:
            assert move(opened, held.job_id, JobState.RUNNING, target)
    result = run(url, "watch", str(held.job_id))
    assert (result.exit_code, str(target) in result.stdout) == (code, True)


def test_what_cannot_be_watched_has_a_code_of_its_own(url: str) -> None:
    unknown = run(url, "watch", str(uuid4()))
    assert unknown.exit_code == 4
    assert "no job has the id" in unknown.stderr
    nobody = run("http://127.0.0.1:1", "watch", str(uuid4()), "--patience", "0")
    assert nobody.exit_code == 4
    assert "does not answer" in nobody.stderr


def test_jobs_are_listed_for_people_and_for_programs(
    url: str, held: Claim, session: Callable[[], Session]
) -> None:
    step(session, held, 3, steps=10, loss=0.5, seconds_left=61.0)
    result = run(url, "list", "--state", "running", "--limit", "1")
    assert result.exit_code == 0
    found = re.split(r"  +", result.stdout.strip())
    assert found == [str(held.job_id), "pretrain", "running", "3/10", "loss 0.500", "1:01 left"]
    [line] = run(url, "list", "--limit", "1", "--json").stdout.splitlines()
    assert json.loads(line)["id"] == str(held.job_id)
    wrong = run(url, "list", "--state", "sleeping")
    assert wrong.exit_code == 4
    assert "state" in wrong.stderr
    assert "no jobs" in run(url, "list", "--dataset", str(uuid4())).stdout
