"""The plan of distillation: who the student is, and what the labels count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.errors import NotEnoughLabels, SpecInvalid
from core.jobs.plan import DataFacts, Parent, Plan, plan_distill

DATA = DataFacts(
    images=1500, labels_per_class={"a": 5, "b": 7}, greyscale=True, median_short_side=16
)
TEACHER = Parent("classifier", "resnet18", 32, 1, "imagenet", classes=("a", "b"))
STUDENT = Parent("encoder", "resnet34", 32, 1, "small", has_projection=True)


def plan_of(data: DataFacts = DATA, **options: Any) -> Plan:
    return plan_distill(options, data, "cpu", parent=TEACHER)


def test_the_student_is_smaller_unless_asked() -> None:
    names = ("encoder", "stem", "image_size", "channels")
    assert [plan_of()[name] for name in names] == ["resnet10", "small", 32, 1]
    assert [plan_of(student="same")[name] for name in names] == ["resnet18", "imagenet", 32, 1]
    assert plan_of(student="resnet50")["encoder"] == "resnet50"


@pytest.fixture
def asked() -> dict[str, Any]:
    return {"student_model_id": "3f2c8a52-6f0e-4a3e-9d8e-1f6f5b0c7d11"}


def test_a_student_that_has_learnt_before(asked: dict[str, Any]) -> None:
    plan = plan_distill(asked, DATA, "cpu", parent=TEACHER, student=STUDENT)
    assert (plan["encoder"], plan["stem"]) == ("resnet34", "small")
    assert plan["student_model_id"] == asked["student_model_id"]
    assert plan_of()["student_model_id"] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_size": 64}, "student_model_id: found a model with image_size 64.*has 32"),
        ({"channels": 3}, "student_model_id: found a model with channels 3.*has 1"),
    ],
)
def test_a_student_that_sees_something_else(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecInvalid, match=words):
        plan_distill({}, DATA, "cpu", parent=TEACHER, student=replace(STUDENT, **change))


@pytest.mark.parametrize("student", ["resnet10", "same"])
def test_two_students(student: str, asked: dict[str, Any]) -> None:
    options = {**asked, "student": student}
    with pytest.raises(SpecInvalid, match=f"student: found '{student}'.*'resnet34'"):
        plan_distill(options, DATA, "cpu", parent=TEACHER, student=STUDENT)
    twin = replace(STUDENT, encoder="resnet18")
    same = {**asked, "student": "same"}
    plan = plan_distill(same, DATA, "cpu", parent=TEACHER, student=twin)
    assert plan["encoder"] == "resnet18"


def test_labels_count_only_when_asked_for() -> None:
    assert plan_of(replace(DATA, labels_per_class={}))["alpha"] == 1.0
    assert plan_of(alpha=0.25)["alpha"] == 0.25
    assert plan_of(alpha=0)["alpha"] == 0.0


@pytest.mark.parametrize(
    ("labels", "words"),
    [({}, "no labels outside"), ({"c": 3}, "no labels of the teacher's classes")],
)
def test_labels_that_are_not_there(labels: dict[str, int], words: str) -> None:
    with pytest.raises(NotEnoughLabels, match=f"alpha: found 0.5 and {words}"):
        plan_of(replace(DATA, labels_per_class=labels), alpha=0.5)


def test_a_student_that_cannot_see_such_images() -> None:
    teacher = replace(TEACHER, image_size=30)
    with pytest.raises(SpecInvalid, match=r"image_size: found 30.*patches of 4"):
        plan_distill({"student": "vit_b_16"}, DATA, "cpu", parent=teacher)
