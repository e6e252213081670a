"""From a user's specification to recorded jobs: freeze the data, find the parent, plan, create."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.auth import Caller
from core.config import Settings
from core.datasets.service import get_dataset
from core.datasets.snapshot import freeze
from core.db.models import Job, Model
from core.errors import ModelNotFound, SpecInvalid, WrongModelKind
from core.jobs.plan import (
    DataFacts,
    Device,
    Parent,
    Plan,
    facts_of,
    parent_of,
    plan_distill,
    plan_embed,
    plan_evaluate,
    plan_finetune,
    plan_pretrain,
    stem_for,
)
from core.jobs.reports import REPORTING
from core.jobs.service import PlannedJob, create_jobs, get_job
from core.jobs.states import JobState
from core.quota import require_job_room
from core.storage.store import BlobStore

CHAIN = ("pretrain", "finetune", "distill")


@dataclass(frozen=True, slots=True)
class _Basis:
    data: DataFacts
    device: Device
    job_seconds: float
    images: int
    labels: int


def submit(
    session: Session,
    caller: Caller,
    spec: Mapping[str, Any],
    *,
    store: BlobStore,
    settings: Settings,
) -> list[Job]:
    """Record what was asked as one job or a chain of jobs.

    Args:
        session: The transaction of the request.
        caller: Who asks.
        spec: `stage`, `dataset_id`, `priority`, `device` and the stage's options, where "auto" is
            for us to decide; for `pipeline` the options of each stage under its name.
        store: Where the snapshot's list is kept.
        settings: Attempts, device and the most unfinished jobs.

    Raises:
        DatasetNotFound, ModelNotFound, JobNotFound: Something named is not the caller's.
        SpecInvalid, WrongModelKind: The job makes no sense on this data or model.
        TooManyJobs: The project has as many unfinished jobs as it may have.
    """
    dataset = get_dataset(session, caller, UUID(str(spec["dataset_id"])), lock=True)
    snapshot = freeze(session, store, dataset)
    basis = _Basis(
        facts_of(snapshot),
        _device(spec, settings),
        settings.job_seconds,
        snapshot.image_count,
        snapshot.label_count,
    )
    if spec["stage"] == "pipeline":
        planned = _plan_chain(session, caller, spec, basis)
    else:
        planned = [_plan_one(session, caller, spec, basis)]
    most = settings.max_unfinished_jobs
    require_job_room(session, caller.project_id, wanted=len(planned), most=most)
    return create_jobs(session, caller, snapshot, planned, max_attempts=settings.job_max_attempts)


def _device(spec: Mapping[str, Any], settings: Settings) -> Device:
    asked: dict[str, Device] = {"cpu": "cpu", "gpu": "cuda"}
    return asked.get(spec.get("device", "auto"), settings.planning_device)


def _priority(spec: Mapping[str, Any]) -> int:
    return int(spec.get("priority", 0))


def _plan_chain(
    session: Session, caller: Caller, spec: Mapping[str, Any], basis: _Basis
) -> list[PlannedJob]:
    planned: list[PlannedJob] = []
    for stage in CHAIN:
        shared = {name: spec[name] for name in ("dataset_id", "priority", "device") if name in spec}
        options = {"stage": stage, **shared, **(spec.get(stage) or {})}
        made = planned[-1].plan if planned else None
        parent = parent_of(made) if made else _find_parent(session, caller, options)[0]
        plan = _plan_stage(options, basis, parent, _find_student(session, caller, options))
        planned.append(PlannedJob(stage, dict(options), plan, None, _priority(spec)))
    return planned


def _plan_one(
    session: Session, caller: Caller, spec: Mapping[str, Any], basis: _Basis
) -> PlannedJob:
    parent, needs_id = _find_parent(session, caller, spec)
    plan = _plan_stage(spec, basis, parent, _find_student(session, caller, spec))
    return PlannedJob(str(spec["stage"]), dict(spec), plan, needs_id, _priority(spec))


def _plan_stage(
    spec: Mapping[str, Any], basis: _Basis, parent: Parent | None, student: Parent | None
) -> Plan:
    stage, data, device = spec["stage"], basis.data, basis.device
    _require(parent, stage)
    _require_time(spec, basis)
    if stage == "embed":
        return plan_embed(spec, device, parent=cast(Parent, parent), images=basis.images)
    if stage == "evaluate":
        return plan_evaluate(spec, device, parent=cast(Parent, parent), labels=basis.labels)
    if stage == "pretrain":
        return plan_pretrain(spec, data, device, parent=parent)
    if stage == "finetune":
        return plan_finetune(spec, data, device, parent=parent)
    return plan_distill(spec, data, device, parent=cast(Parent, parent), student=student)


def _require_time(spec: Mapping[str, Any], basis: _Basis) -> None:
    minutes, allowed = spec.get("budget_minutes"), basis.job_seconds / 60
    if minutes is not None and minutes >= allowed:
        raise SpecInvalid(
            f"budget_minutes: found {minutes:g}, a job may run for {allowed:g} minutes here, its "
            "preparation included (FEWLABELS_JOB_SECONDS); less is allowed"
        )


def _require(parent: Parent | None, stage: str) -> None:
    if parent is None and stage == "distill":
        raise SpecInvalid("model_id: a distill job needs a classifier; set model_id or needs")
    if parent is None and stage in REPORTING:
        raise SpecInvalid(f"model_id: {stage} needs a model; set model_id or needs")
    # The other stages take the encoder of either kind.
    if parent is not None and stage == "distill" and parent.kind != "classifier":
        raise WrongModelKind(
            "model_id or needs: found an encoder, this stage starts from a classifier"
        )


def _find_parent(
    session: Session, caller: Caller, spec: Mapping[str, Any]
) -> tuple[Parent | None, UUID | None]:
    if spec.get("needs") and spec.get("model_id"):
        raise SpecInvalid("model_id and needs: found both; a job starts from one model")
    if spec.get("needs"):
        needed = get_job(session, caller, UUID(str(spec["needs"])))
        if needed.state in {JobState.FAILED, JobState.CRASHED, JobState.CANCELLED}:
            raise SpecInvalid(f"needs: job {needed.id} has ended as {needed.state}; retry it first")
        if needed.stage in REPORTING:
            raise SpecInvalid(
                f"needs: job {needed.id} has the stage {needed.stage!r}, which makes no model to "
                "start from"
            )
        return parent_of(needed.plan), needed.id
    if spec.get("model_id"):
        return _parent_from(_own_model(session, caller, spec, "model_id")), None
    return None, None


def _find_student(session: Session, caller: Caller, spec: Mapping[str, Any]) -> Parent | None:
    if not spec.get("student_model_id"):
        return None
    return _parent_from(_own_model(session, caller, spec, "student_model_id"))


def _parent_from(model: Model) -> Parent:
    architecture = model.manifest["architecture"]
    encoder, size = architecture["encoder"], architecture["image_size"]
    stem = architecture.get("stem", "auto")  # models of the first version have none
    return Parent(
        "encoder" if model.kind == "encoder" else "classifier",
        encoder,
        size,
        architecture["channels"],
        stem_for(encoder, size) if stem == "auto" else stem,
        has_projection=model.manifest.get("projection") is not None,
        classes=tuple(model.manifest.get("classes") or ()),
    )


def _own_model(session: Session, caller: Caller, spec: Mapping[str, Any], field: str) -> Model:
    model_id = UUID(str(spec[field]))
    statement = select(Model).where(Model.id == model_id, Model.project_id == caller.project_id)
    # Held until the job is recorded, so that the model cannot be deleted in between.
    model = session.scalars(statement.with_for_update(read=True, key_share=True)).one_or_none()
    if model is None:
        raise ModelNotFound(f"{field}: no model has the id {model_id}")
    return model
