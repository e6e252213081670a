"""What the process of a job said."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse

from api.auth import ReadCaller
from api.dependencies import SessionDep
from api.errors import responses
from api.guard import GuardedRoute
from api.schemas.watching import LogLineOut, LogQuery, LogsOut
from core.db.events import JobLogLine
from core.errors import JobNotFound
from core.jobs import service
from core.jobs.logs import read_lines

router = APIRouter(tags=["jobs"], route_class=GuardedRoute)


@router.get(
    "/jobs/{job_id}/logs",
    response_model=LogsOut,
    responses={
        **responses(JobNotFound),
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
    },
    summary="What the job's process said",
)
def get_logs(
    job_id: UUID, session: SessionDep, caller: ReadCaller, query: Annotated[LogQuery, Query()]
) -> LogsOut | Response:
    """A second or so late while the job runs. Passwords and keys are taken out of the lines."""
    job = service.get_job(session, caller, job_id)
    lines = read_lines(session, job.id, after=query.after, attempt=query.attempt, limit=query.limit)
    last = lines[-1].id if lines else query.after
    if query.format == "text":
        headers = {} if last is None else {"X-Last-Id": str(last)}
        return PlainTextResponse("".join(map(_as_text, lines)), headers=headers)
    shown = [LogLineOut.model_validate(line) for line in lines]
    return LogsOut(job_id=job.id, lines=shown, last_id=last)


def _as_text(line: JobLogLine) -> str:
    fields = "".join(f" {name}={value}" for name, value in line.fields.items())
    level = f" [{line.level}]" if line.level else ""
    # A console line has its own time and level; a structured one gets them here.
    start = f"{line.at.isoformat(timespec='milliseconds')}{level} " if line.level else ""
    return f"{start}{line.text}{fields}\n"
