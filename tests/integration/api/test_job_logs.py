"""Log lines over HTTP, as JSON and as text."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from core.jobs import leases
from core.jobs.logs import Line, write_lines
from tests.integration.api.problems import assert_problem, pictures


def test_lines_in_pages_as_json_and_as_text(
    client: Any, add_dataset: Callable[..., str], session: Callable[[], Session]
) -> None:
    order = {"stage": "pretrain", "dataset_id": add_dataset(pictures(3)), "batch_size": 2}
    job_id = UUID(client.post("/jobs", json=order).json()["id"])
    at = datetime(2026, 1, 2, tzinfo=UTC)
    lines = [Line(at, "plain"), Line(at, "epoch", "info", {"loss": 0.5}), Line(at, "bye")]
    empty = client.get(f"/jobs/{job_id}/logs").json()
    assert empty == {"job_id": str(job_id), "lines": [], "last_id": None}
    with session() as opened, opened.begin():
        held = leases.claim(opened, job_id, worker="w", lease_seconds=600)
        assert held is not None
        write_lines(opened, held, lines, most=100)
    first = client.get(f"/jobs/{job_id}/logs", params={"after": 0, "limit": 2}).json()
    assert [line["text"] for line in first["lines"]] == ["plain", "epoch"]
    assert first["lines"][1]["fields"] == {"loss": 0.5}
    rest = client.get(f"/jobs/{job_id}/logs", params={"after": first["last_id"]}).json()
    assert [line["text"] for line in rest["lines"]] == ["bye"]
    text = client.get(f"/jobs/{job_id}/logs", params={"format": "text"})
    assert text.headers["content-type"].startswith("text/plain")
    assert text.text == "plain\n2026-01-02T00:00:00.000+00:00 [info] epoch loss=0.5\nbye\n"
    assert text.headers["x-last-id"] == str(rest["last_id"])
    assert client.get(f"/jobs/{job_id}/logs", params={"attempt": 2}).json()["lines"] == []
    assert_problem(client.get(f"/jobs/{job_id}/logs", params={"aftr": 1}), 422, "aftr")
