"""The ids that tie a job to the request it comes from, on its row, and so from host to host."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Self
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.db.models import Job
from core.telemetry import current
from core.tracing import Span, span, trace_ids, traceparent


@dataclass(frozen=True, slots=True)
class Origin:
    """What log lines and spans of a job carry."""

    job_id: str
    project_id: str
    request_id: str | None
    trace_context: str | None

    def log_ids(self) -> dict[str, str]:
        """What is bound to log lines; an id that is not known is left out."""
        found = {
            "job_id": self.job_id,
            "project_id": self.project_id,
            "request_id": self.request_id,
        }
        known = {name: value for name, value in found.items() if value is not None}
        return {**known, **trace_ids(self.trace_context)}

    def span(self, name: str, *, since: int | None = None) -> AbstractContextManager[Span]:
        """A span of the job in the trace of its request."""
        return span(
            name,
            parent=self.trace_context,
            since=since,
            job_id=self.job_id,
            project_id=self.project_id,
            request_id=self.request_id,
        )

    def as_argument(self) -> str:
        """For the command line of the job's process, in the present span; ids are no secrets."""
        inside = replace(self, trace_context=traceparent() or self.trace_context)
        return json.dumps(asdict(inside))

    @classmethod
    def from_argument(cls, text: str) -> Self:
        """The origin that as_argument gave."""
        return cls(**json.loads(text))


def new_origin() -> dict[str, str | None]:
    """The columns of a job that is created in the present request."""
    return {"request_id": current("request_id"), "trace_context": traceparent()}


def origin_of(session: Session, job_id: UUID) -> Origin:
    """The origin of a job that is there."""
    columns = Job.project_id, Job.request_id, Job.trace_context
    row = session.execute(select(*columns).where(Job.id == job_id)).one()
    return Origin(str(job_id), str(row.project_id), row.request_id, row.trace_context)
