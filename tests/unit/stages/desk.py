"""Jobs on handwritten digits, claimed as a worker claims them, for a test to run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

from sqlalchemy import select

from core.config import Settings
from core.db.models import Dataset, Model
from core.db.session import make_engine, session_factory
from core.jobs import leases
from core.jobs.submission import submit
from core.stages.context import StageContext
from core.stages.facts import load_facts
from core.storage.store import open_store
from tests.integration.job_engine import IMAGES, LABELLED, upload_digits
from tests.jobs_database import fresh_database
from tests.tiny_models import publish_tiny_model


class Desk:
    """Takes jobs on a data set of digits and gives them to whoever runs them."""

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        export_onnx: bool = False,
        images: int = IMAGES,
        labelled: int = LABELLED,
    ) -> None:
        self.settings = Settings(
            data_dir=folder, device="cpu", export_onnx=export_onnx, _env_file=None
        )
        self.store = open_store(self.settings.store_url)
        self.store.prepare()
        self.engine = make_engine(url)
        self.sessions = session_factory(self.engine)
        self.caller, self.dataset_id = upload_digits(
            self.sessions, self.store, images=images, labelled=labelled
        )

    @classmethod
    @contextmanager
    def opened(cls, postgres_url: str, folder: Path, **options: Any) -> Iterator[Self]:
        """On a database of its own."""
        with fresh_database(postgres_url) as url:
            desk = cls(url, folder, **options)
            try:
                yield desk
            finally:
                desk.engine.dispose()

    def split(self, *, validation: float, test: float) -> None:
        """The shares that jobs from now on put aside."""
        with self.sessions.begin() as session:
            dataset = session.get_one(Dataset, self.dataset_id)
            dataset.validation_fraction, dataset.test_fraction = validation, test

    def order(self, **spec: Any) -> UUID:
        """A job that nobody runs yet."""
        asked = {"dataset_id": str(self.dataset_id), **spec}
        with self.sessions.begin() as session:
            [job] = submit(session, self.caller, asked, store=self.store, settings=self.settings)
            return job.id

    def context(self, job_id: UUID) -> StageContext:
        """The job, claimed."""
        with self.sessions.begin() as session:
            held = leases.claim(session, job_id, worker="w", lease_seconds=600)
            assert held is not None
            facts = load_facts(session, job_id)
        return StageContext(
            facts,
            held,
            sessions=self.sessions,
            store=self.store,
            settings=self.settings,
            should_stop=lambda: False,
        )

    def take(self, **spec: Any) -> StageContext:
        """A new job, claimed."""
        return self.context(self.order(**spec))

    def manifest(self, model_id: UUID) -> dict[str, Any]:
        """Of a model, read back from the database."""
        with self.sessions.begin() as session:
            return session.scalars(select(Model.manifest).where(Model.id == model_id)).one()

    def add_untrained(self, job_id: UUID, **options: Any) -> UUID:
        """An untrained model, as if this job had made it."""
        manifest, digest = publish_tiny_model(self.store, **options)
        model_id = uuid4()
        with self.sessions.begin() as session:
            session.add(
                Model(
                    id=model_id,
                    project_id=self.caller.project_id,
                    job_id=job_id,
                    kind=manifest["kind"],
                    manifest=manifest,
                    manifest_sha256=digest,
                )
            )
        return model_id
