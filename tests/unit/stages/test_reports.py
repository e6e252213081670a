"""Embedding and evaluating: jobs that end with a report, on real Postgres with pgvector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from core.datasets.labels import Assignment, put_labels
from core.datasets.references import Reference
from core.db.models import Dataset, Image, Job, Model
from core.db.vectors import Embedding, Report
from core.errors import (
    LeaseLost,
    NotEmbedded,
    NotIndexed,
    SpecInvalid,
    VectorInvalid,
    WrongModelKind,
)
from core.images.decoding import decode
from core.images.recording import image_key
from core.inference.model import LoadedModel
from core.inference.runtimes import Placement
from core.jobs.submission import submit
from core.registry.service import delete_model, source_of
from core.search import stored
from core.search.index import index_name, is_ready
from core.search.nearest import Question, find_nearest, search_all
from core.search.stored import VectorSet
from core.stages.context import StageContext
from core.stages.embed import run_embed
from core.stages.evaluate import run_evaluate
from core.stages.finetune import run_finetune
from core.stages.outcome import publish
from core.stages.report import conclude
from tests.integration.job_engine import IMAGES, LABELLED
from tests.unit.stages.test_finetune import TINY, Finetuning


@pytest.fixture(scope="module")
def desk(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finetuning]:
    with Finetuning.opened(postgres_url, tmp_path_factory.mktemp("desk")) as desk:
        yield desk


@pytest.fixture(scope="module")
def classifier_id(desk: Finetuning) -> UUID:
    context = desk.take(
        stage="finetune", **TINY, method="full", epochs=1, batch_size=16, calibrate=False, split=0.2
    )
    return publish(context, run_finetune(context))


def report(desk: Finetuning, context: StageContext) -> dict[str, Any]:
    run = run_embed if context.job.stage == "embed" else run_evaluate
    assert conclude(context, run(context)) is None
    with desk.sessions.begin() as session:
        job = session.get_one(Job, context.job.id)
        assert job.state == "succeeded"
        return session.get_one(Report, job.id).body


@pytest.fixture(scope="module")
def embedded_report(desk: Finetuning, classifier_id: UUID) -> dict[str, Any]:
    return report(desk, desk.take(stage="embed", model_id=str(classifier_id), index="hnsw"))


def sample(session: Session, model_id: UUID) -> tuple[UUID, Any]:
    [(image_id, vector)] = stored.sample_vectors(session, VectorSet(model_id), count=1)
    return image_id, vector


def test_every_image_gets_the_vector_that_serving_gives(
    desk: Finetuning, classifier_id: UUID, embedded_report: dict[str, Any]
) -> None:
    assert embedded_report["vectors"] == embedded_report["embedded"] == IMAGES
    assert embedded_report["unusable"] == embedded_report["there_before"] == 0
    with desk.sessions.begin() as session:
        source = source_of(
            session.get_one(Model, classifier_id), desk.store, desk.settings.data_dir / "m"
        )
        image_id, vector = sample(session, classifier_id)
        data = desk.store.get(image_key(session.get_one(Image, image_id).sha256))
    served = LoadedModel(source, Placement())
    pixels = decode(data, max_bytes=10**6, max_pixels=10**6).pixels_HWC
    [answer] = served.forward([served.preprocessing.canvas(pixels)])
    assert embedded_report["dimension"] == len(vector) == served.dimension
    np.testing.assert_allclose(vector, answer.embedding_D, atol=1e-3)


def test_the_index_is_used_and_its_recall_is_measured(
    desk: Finetuning, classifier_id: UUID, embedded_report: dict[str, Any]
) -> None:
    index = embedded_report["index"]
    assert index["kind"] == "hnsw"
    assert index["queries"] == 100
    assert index["recall_at_10"] > 0.95
    plans = []
    with desk.sessions.begin() as session:
        _, vector = sample(session, classifier_id)
        question = Question(
            vectors=VectorSet(classifier_id, desk.dataset_id),
            vector=vector,
            labels=["digit 1", "digit 2"],
            limit=5,
        )
        connection = session.connection()
        execute = session.execute

        def explained(statement: Any, *args: Any, **more: Any) -> Any:
            if "<=>" in str(statement):
                sql = statement.compile(connection, compile_kwargs={"render_postcompile": True})
                raw = connection.exec_driver_sql(f"EXPLAIN {sql}", sql.params)
                plans.append("\n".join(raw.scalars()))
            return execute(statement, *args, **more)

        session.execute = explained  # type: ignore[method-assign]
        found = find_nearest(session, question)
        exact = search_all(session, question)
    assert found.method == "hnsw"
    assert index_name(classifier_id) in plans[0]
    assert index_name(classifier_id) not in plans[1]
    assert [n.image_id for n in found.neighbours] == [row.image_id for row in exact]
    assert {n.label for n in found.neighbours} <= {"digit 1", "digit 2"}


def test_an_image_is_nearest_to_itself_and_filters_hold(
    desk: Finetuning, classifier_id: UUID, embedded_report: dict[str, Any]
) -> None:
    vectors = VectorSet(classifier_id)
    with desk.sessions.begin() as session:
        image_id, vector = sample(session, classifier_id)
        first = find_nearest(session, Question(vectors=vectors, vector=vector, method="exact"))
        assert first.method == "exact"
        assert first.neighbours[0].distance == pytest.approx(0, abs=1e-6)
        distances = [n.distance for n in first.neighbours]
        assert distances == sorted(distances)
        without = find_nearest(session, Question(vectors=vectors, vector=vector, without=image_id))
        assert image_id not in {n.image_id for n in without.neighbours}
        # The filter leaves fewer than were asked for: then every vector has been looked at.
        rare = Question(vectors=vectors, vector=vector, labels=["digit 3"], limit=100)
        found = find_nearest(session, rare)
        assert found.method == "exact"
        assert 0 < len(found.neighbours) < 100
        nowhere = Question(vectors=VectorSet(UUID(int=1)), vector=vector)
        with pytest.raises(NotEmbedded, match="run an embed job"):
            find_nearest(session, nowhere)
        for bad in (vector[:-1], vector * 0, vector * np.nan):
            with pytest.raises(VectorInvalid, match="vector: found"):
                find_nearest(session, Question(vectors=vectors, vector=bad))


def test_a_second_run_embeds_what_is_missing_only(
    desk: Finetuning, classifier_id: UUID, embedded_report: dict[str, Any]
) -> None:
    with desk.sessions.begin() as session:
        some = select(Embedding.image_id).limit(30)
        session.execute(delete(Embedding).where(Embedding.image_id.in_(some)))
    body = report(desk, desk.take(stage="embed", model_id=str(classifier_id)))
    assert (body["embedded"], body["there_before"], body["vectors"]) == (30, IMAGES - 30, IMAGES)
    assert body["index"]["recall_at_10"] > 0.95, "new vectors are in the index"


def test_who_has_lost_the_job_records_nothing(desk: Finetuning, classifier_id: UUID) -> None:
    with desk.sessions.begin() as session:
        session.execute(delete(Embedding).where(Embedding.model_id == classifier_id))
    context = desk.take(stage="embed", model_id=str(classifier_id))
    with desk.sessions.begin() as session:
        job = session.get_one(Job, context.job.id)
        job.fencing_token += 1
    with pytest.raises(LeaseLost):
        run_embed(context)
    with desk.sessions.begin() as session:
        assert session.scalar(select(func.count()).select_from(Embedding)) == 0
        session.get_one(Job, context.job.id).fencing_token -= 1
    assert report(desk, context)["embedded"] == IMAGES


def test_an_evaluation_has_every_figure_with_and_without_what_was_trained_on(
    desk: Finetuning, classifier_id: UUID
) -> None:
    body = report(desk, desk.take(stage="evaluate", model_id=str(classifier_id), split=0.2))
    assert body["evaluated"] == body["all"]["total"] == LABELLED
    low, high = body["all"]["interval_95"]
    assert low <= body["all"]["accuracy"] <= high
    assert 0 <= body["all"]["calibration_error"] <= 1
    assert sum(s["support"] for s in body["all"]["per_class"].values()) == LABELLED
    cells = [count for row in body["all"]["confusion"].values() for count in row.values()]
    assert sum(cells) == LABELLED
    assert 0 < body["seen_in_training"] < LABELLED
    assert body["unseen"]["total"] == LABELLED - body["seen_in_training"]
    assert any("flatters" in warning for warning in body["warnings"])
    with desk.sessions.begin() as session:
        manifest = session.get_one(Model, classifier_id).manifest
    # Nothing of the test split was learnt from: the job that made the model measured the same.
    assert body["unseen"]["total"] == manifest["metrics"]["test"]["total"]
    assert body["unseen"]["correct"] == manifest["metrics"]["test"]["correct"]


def test_classes_that_the_model_does_not_know_are_listed(
    desk: Finetuning, classifier_id: UUID
) -> None:
    with desk.sessions.begin() as session:
        dataset = session.get_one(Dataset, desk.dataset_id)
        foreign = [
            Assignment(n, Reference(file=f"{LABELLED + n}.png"), "a letter") for n in range(4)
        ]
        put_labels(session, desk.caller, dataset, foreign, max_classes=20)
    body = report(desk, desk.take(stage="evaluate", model_id=str(classifier_id)))
    assert body["unknown_classes"] == {"a letter": 4}
    assert body["evaluated"] == LABELLED
    counted = body["accuracy_with_unknown"]["accuracy"]
    assert counted == pytest.approx(body["all"]["correct"] / (LABELLED + 4))


def test_orders_that_make_no_sense_are_refused(desk: Finetuning, classifier_id: UUID) -> None:
    def order(**spec: Any) -> str:
        asked = {"dataset_id": str(desk.dataset_id), **spec}
        with desk.sessions.begin() as session:
            [job] = submit(session, desk.caller, asked, store=desk.store, settings=desk.settings)
            return str(job.id)

    pretrain = order(stage="pretrain", **TINY, batch_size=32)
    with pytest.raises(WrongModelKind, match="only a classifier"):
        order(stage="evaluate", needs=pretrain)
    with pytest.raises(SpecInvalid, match="needs a model"):
        order(stage="embed")
    embedding = order(stage="embed", needs=pretrain)
    with pytest.raises(SpecInvalid, match="makes no model"):
        order(stage="finetune", needs=embedding)


def test_vectors_and_index_go_with_the_model(desk: Finetuning) -> None:
    context = desk.take(stage="finetune", **TINY, method="full", epochs=1, batch_size=16)
    other = publish(context, run_finetune(context))
    report(desk, desk.take(stage="embed", model_id=str(other), index="hnsw"))
    with desk.sessions.begin() as session:
        assert is_ready(session, other)
        delete_model(session, desk.caller, other)
    with desk.sessions.begin() as session:
        left = select(func.count()).where(Embedding.model_id == other)
        assert session.scalar(left) == 0
        kept = VectorSet(desk_model(session))
        _, vector = sample(session, kept.model_id)
        session.execute(text(f"DROP INDEX IF EXISTS {index_name(kept.model_id)}"))
        with pytest.raises(NotIndexed):
            find_nearest(session, Question(vectors=kept, vector=vector, method="hnsw"))
    report(desk, desk.take(stage="embed", model_id=str(kept.model_id), index="hnsw"))
    with desk.sessions.begin() as session:
        gone = session.scalar(text("SELECT to_regclass(:n)"), {"n": index_name(other)})
        assert gone is None, "the next build sweeps the index of a model that is gone"


def desk_model(session: Session) -> UUID:
    return session.scalars(select(Embedding.model_id).limit(1)).one()
