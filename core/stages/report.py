"""What a stage found out about a model, and how any stage's result ends its job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.db.vectors import Report
from core.jobs.outages import outlast
from core.jobs.reports import succeed_with_report
from core.stages.context import StageContext
from core.stages.outcome import Outcome, publish


@dataclass(frozen=True, slots=True)
class Finding:
    """A report on a model; no model is made."""

    model_id: UUID
    body: dict[str, Any]


def conclude(context: StageContext, result: Outcome | Finding) -> UUID | None:
    """End the job with what it made or found out; the id of the model if it made one.

    Raises:
        LeaseLost: Another worker holds the job now.
        IntegrityError: The model or the dataset was deleted past the API's refusal.
        OperationalError: The database stayed away.
    """
    if isinstance(result, Outcome):
        return publish(context, result)

    def end() -> None:
        report = Report(
            job_id=context.job.id,
            project_id=context.job.project_id,
            model_id=result.model_id,
            dataset_id=context.job.dataset_id,
            stage=context.job.stage,
            body=result.body,
        )
        with context.sessions.begin() as session:
            context.write_rest(session)
            succeed_with_report(session, context.job.id, context.held.token, report)

    outlast(end, seconds=context.settings.lease_seconds, give_up=context.should_stop)
    return None
