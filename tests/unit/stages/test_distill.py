"""The distillation stage: what it reads of plan and labels, and what it reports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import torch

from core.datasets.snapshot import SnapshotItem
from core.db.models import Dataset
from core.errors import SpecInvalid
from core.jobs.plan import DataFacts, Parent, plan_distill
from core.learning.augmentations import PRESETS
from core.learning.classifier import Classifier
from core.stages.distill import config_of, run_distill, train_targets
from tests.integration.job_engine import IMAGES
from tests.tiny_models import SIDE
from tests.unit.stages.desk import Desk

DIGITS = tuple(f"digit {number}" for number in range(10))
DATA = DataFacts(
    images=400, labels_per_class={"bolt": 5, "nut": 5}, greyscale=False, median_short_side=32
)
TEACHER = Parent("classifier", "resnet18", 32, 3, "small", classes=("bolt", "nut"))


class Project(Desk):
    """A data set of digits, and models that jobs have left behind."""

    def job(self, stage: str, **options: Any) -> UUID:
        return self.order(stage=stage, **options)

    def model(self, **options: Any) -> UUID:
        """An untrained model of one channel, as if a job had made it."""
        job_id = self.job("pretrain", encoder="resnet10_tiny", batch_size=32)
        return self.add_untrained(job_id, **{"channels": 1, **options})


@pytest.fixture(scope="module")
def project(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with Project.opened(postgres_url, tmp_path_factory.mktemp("project")) as project:
        yield project


def test_a_plan_becomes_a_configuration() -> None:
    options = {"alpha": 0.5, "temperature": 2.0, "augmentation_strength": 0.5, "seed": 7}
    plan = plan_distill(options, DATA, "cpu", parent=TEACHER)
    config = config_of(plan)
    assert (config.alpha, config.temperature, config.seed) == (0.5, 2.0, 7)
    assert config.augmentation == PRESETS[plan["augmentation"]].scaled(0.5)
    assert (config.epochs, config.budget_minutes) == (plan["epochs"], None)
    for name in ("learning_rate", "lr_scaling", "weight_decay", "clip_grad_norm", "optimizer"):
        assert getattr(config, name) == plan[name]


def test_a_budget_stands_in_place_of_epochs() -> None:
    plan = plan_distill({"budget_minutes": 2.0}, DATA, "cpu", parent=TEACHER)
    config = config_of(plan)
    assert (config.epochs, config.budget_minutes) == (None, 2.0)


def test_plans_of_the_first_version_are_understood() -> None:
    plan = {
        "epochs": 3,
        "batch_size": 64,
        "temperature": 1.0,
        "optimizer": "adamw",
        "learning_rate": 3e-3,
        "weight_decay": 1e-4,
        "warmup_epochs": 1.0,
        "augmentation": "document",
        "seed": 0,
    }
    config = config_of(plan)
    assert (config.alpha, config.lr_scaling) == (1.0, "none")
    assert config.augmentation == PRESETS["document"]


def test_only_labels_of_the_train_split_are_learnt() -> None:
    items = [
        SnapshotItem("a", "nut", "train"),
        SnapshotItem("b", "nut", "validation"),
        SnapshotItem("c", None, "train"),
        SnapshotItem("d", "washer", "train"),
        SnapshotItem("e", "bolt", "train"),
        SnapshotItem("f", "bolt", "test"),
    ]
    assert train_targets(items, ["bolt", "nut"]).tolist() == [1, -1, -1, -1, 0, -1]


def test_a_student_from_an_encoder_is_measured_beside_its_teacher(project: Project) -> None:
    teacher_id = project.model(classes=DIGITS)
    student_id = project.model(seed=1)
    job_id = project.job(
        "distill",
        model_id=str(teacher_id),
        student_model_id=str(student_id),
        alpha=0.5,
        epochs=2,
        batch_size=32,
        learning_rate=1e-12,  # so that what it starts from can be seen at the end
        weight_decay=0.0,
    )
    context = project.context(job_id)
    outcome = run_distill(context)
    given = context.load_model(student_id).module
    assert isinstance(outcome.module, Classifier)
    for (name, found), start in zip(
        outcome.module.encoder.named_parameters(), given.parameters(), strict=True
    ):
        torch.testing.assert_close(found, start, msg=name)
    assert outcome.architecture.encoder == "resnet10_tiny"
    assert outcome.architecture.image_size == SIDE
    assert outcome.config["alpha"] == 0.5

    metrics = json.loads(json.dumps(outcome.metrics))
    splits = {item.split for item in context.items() if item.label} - {"train"}
    for who in ("teacher", "student"):
        costs = {"parameters", "multiply_adds", "images_per_second"}
        assert costs | splits == set(metrics[who]) - {"cross_validation"}
    assert metrics["warnings"] == []
    assert metrics["teacher"]["parameters"] == metrics["student"]["parameters"]
    for split in splits:
        for name in ("accuracy", "interval_95", "correct", "total"):
            assert metrics["student"][split][name] == metrics[split][name]
    unseen = [item for item in context.items() if item.split == "test"]
    assert metrics["agreement"]["total"] == len(unseen)
    assert metrics["agreement"]["method"] == "test split, labelled or not"
    assert metrics["images"] == IMAGES - len(unseen)


def test_a_student_of_other_images_is_refused(project: Project) -> None:
    teacher_id, fitting_id = project.model(classes=DIGITS), project.model()
    job_id = project.job(
        "distill",
        model_id=str(teacher_id),
        student_model_id=str(fitting_id),
        epochs=1,
        batch_size=32,
    )
    context = project.context(job_id)
    # As if the plan had let it pass.
    context.job.plan["student_model_id"] = str(project.model(channels=3))
    with pytest.raises(SpecInvalid, match="found a model for images of 16 px with 3 channels"):
        run_distill(context)


@pytest.mark.parametrize(("student", "hidden_dim"), [("same", 24), ("mobilenet_v3_small", None)])
def test_the_same_architecture_is_all_of_it(
    project: Project, student: str, hidden_dim: int | None
) -> None:
    teacher_id = project.model(classes=DIGITS, hidden_dim=24)
    job_id = project.job(
        "distill", model_id=str(teacher_id), student=student, epochs=1, batch_size=64
    )
    outcome = run_distill(project.context(job_id))
    assert outcome.architecture.hidden_dim == hidden_dim
    assert isinstance(outcome.module, Classifier)
    assert (outcome.module.hidden is not None) == (hidden_dim is not None)


def test_without_splits_it_says_that_nothing_was_measured(project: Project) -> None:
    with project.sessions.begin() as session:
        dataset = session.get_one(Dataset, project.dataset_id)
        dataset.validation_fraction = dataset.test_fraction = 0.0
    measured = {"accuracy": 0.9, "method": "5-fold cross-validation of the head"}
    teacher_id = project.model(classes=DIGITS, metrics={"cross_validation": measured})
    job_id = project.job("distill", model_id=str(teacher_id), epochs=1, batch_size=64)
    metrics = run_distill(project.context(job_id)).metrics
    assert "not measured side by side" in metrics["warnings"][0]
    assert metrics["teacher"]["cross_validation"] == measured
