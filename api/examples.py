"""Examples that name what this machine's user has, so that they work when they are pasted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from api.schemas.jobs import SAMPLE_ID
from core.auth import local_caller
from core.db.models import Alias, Dataset, ImageName, Model
from core.telemetry import logger

log = logger(__name__)
SAMPLE_ALIAS = "production"
SAMPLE_FILES = ("a.png", "b.png")


@dataclass(frozen=True, slots=True)
class Own:
    """The newest of everything, or the placeholder where there is nothing yet."""

    dataset_id: str = SAMPLE_ID
    encoder_id: str = SAMPLE_ID
    classifier_id: str = SAMPLE_ID
    model: str = SAMPLE_ALIAS
    files: tuple[str, ...] = SAMPLE_FILES


def with_own_names(document: dict[str, Any], sessions: sessionmaker[Session]) -> dict[str, Any]:
    """A copy of the OpenAPI document whose examples name the newest dataset, models and files.

    For a service without authentication only: others would be shown ids that are not theirs.
    """
    try:
        with sessions.begin() as session:
            own = _newest(session)
    except SQLAlchemyError as error:
        log.warning("examples keep their placeholders", error=repr(error))
        return document
    filled: dict[str, Any] = fill(document, own)
    return filled


def fill(node: Any, own: Own) -> Any:
    """A copy of a part of the document with the placeholders replaced."""
    if isinstance(node, list):
        return [fill(item, own) for item in node]
    if not isinstance(node, dict):
        return node
    result = {name: fill(value, own) for name, value in node.items()}
    if node.get("dataset_id") == SAMPLE_ID:
        result["dataset_id"] = own.dataset_id
    if node.get("model_id") == SAMPLE_ID:
        starts_from_encoder = node.get("stage") in ("pretrain", "finetune")
        result["model_id"] = own.encoder_id if starts_from_encoder else own.classifier_id
    if node.get("model") == SAMPLE_ALIAS:
        result["model"] = own.model
    if node.get("file") in SAMPLE_FILES:
        result["file"] = own.files[SAMPLE_FILES.index(node["file"])]
    return result


def _newest(session: Session) -> Own:
    project = local_caller(session).project_id

    def newest_model(kind: str) -> str | None:
        wanted = select(Model.id).where(Model.project_id == project, Model.kind == kind)
        found = session.scalar(wanted.order_by(Model.created_at.desc()).limit(1))
        return None if found is None else str(found)

    datasets = select(Dataset.id).where(Dataset.project_id == project)
    dataset_id = session.scalar(datasets.order_by(Dataset.created_at.desc()).limit(1))
    files = select(ImageName.name).where(ImageName.dataset_id == dataset_id)
    names = tuple(session.scalars(files.order_by(ImageName.name).limit(len(SAMPLE_FILES))))
    classifier_id = newest_model("classifier")
    alias = session.scalar(
        select(Alias.name)
        .join(Model, Model.id == Alias.model_id)
        .where(Alias.project_id == project, Model.kind == "classifier")
        .order_by(Alias.updated_at.desc())
        .limit(1)
    )
    return Own(
        dataset_id=str(dataset_id or SAMPLE_ID),
        encoder_id=newest_model("encoder") or SAMPLE_ID,
        classifier_id=classifier_id or SAMPLE_ID,
        model=alias or classifier_id or SAMPLE_ALIAS,
        files=names if len(names) == len(SAMPLE_FILES) else SAMPLE_FILES,
    )
