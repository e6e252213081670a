"""The lines of docs/watching.md, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from core.config import Settings
from core.jobs.logs import Line, write_lines
from core.jobs.states import JobState, move
from tests.integration.api.jobs_under_way import begin, served, step

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "watching.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def ended_job(client: Any, add_dataset: Callable[..., str], session: Callable[[], Session]) -> str:
    held = begin(client, add_dataset, session)
    step(session, held, 1, steps=2, loss=0.5)
    with session() as opened, opened.begin():
        write_lines(opened, held, [Line(held_at(opened), "a line of the log")], most=10)
        assert move(opened, held.job_id, JobState.RUNNING, JobState.SUCCEEDED)
    return str(held.job_id)


def held_at(session: Session) -> Any:
    return session.connection().exec_driver_sql("SELECT clock_timestamp()").scalar_one()


def test_the_lines_work_as_they_stand(settings: Settings, ended_job: str, tmp_path: Path) -> None:
    command = tmp_path / "fewlabels"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m core.cli "$@"\n')
    command.chmod(0o755)
    assert len(BLOCKS) == 4
    with served(settings) as (url, _):
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "API": url,
            "JOB": ended_job,
        }
        said = [
            subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.replace("curl ", "curl --fail ")],
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            ).stdout
            for block in BLOCKS
        ]
    assert '"state":"succeeded"' in said[0]
    assert said[1].count("event: end") == 2
    assert said[1].count('"state": "running"') == 1  # from the beginning only
    assert '"values":[1.0]' in said[2]
    assert said[2].count("a line of the log") == 2
    assert f"{ended_job}  pretrain" in said[3]
    assert "succeeded in" in said[3]
