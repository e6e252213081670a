"""The plan of stage 3: a student learns the classifier's answers."""

from __future__ import annotations

from core.errors import NotEnoughLabels, SpecInvalid
from core.jobs.plan.facts import DataFacts, Device, Parent, Plan
from core.jobs.plan.length import batch_of_all, length_plan
from core.jobs.plan.network import SMALLER, augmentation_plan, refuse_size, stem_for
from core.jobs.plan.options import Options, choose, is_given
from core.jobs.plan.rates import ANEW, optimizer_plan, precision

LONGEST_WARMUP = 2.0  # epochs


def plan_distill(
    options: Options,
    data: DataFacts,
    device: Device,
    *,
    parent: Parent,
    student: Parent | None = None,
) -> Plan:
    """Resolve a distillation job; `student` is the model whose encoder the student begins with.

    Raises:
        NotEnoughImages: Fewer images than a batch.
        NotEnoughLabels: Labels are to count, and there are none.
        SpecInvalid: The student does not fit the teacher, or options contradict each other.
    """
    batch = batch_of_all(options, data)
    network = _network(options, parent, student)
    return {
        "stage": "distill",
        "device": device,
        "images": data.images,
        **network,
        "student_model_id": choose(options, "student_model_id", None),
        "alpha": _alpha(options, data, parent),
        "temperature": choose(options, "temperature", 1.0),
        "mixup": choose(options, "mixup", False),
        "batch_size": batch,
        **length_plan(
            options,
            "distill",
            images=data.images,
            batch=batch,
            device=device,
            longest_warmup=LONGEST_WARMUP,
        ),
        **optimizer_plan(
            options, encoder=network["encoder"], batch=batch, rates=ANEW, weight_decay=1e-4
        ),
        "precision": precision(options, device),
        **augmentation_plan(options, data, parent.image_size),
        "seed": choose(options, "seed", 0),
    }


def _network(options: Options, teacher: Parent, student: Parent | None) -> Plan:
    encoder, stem = _student(options, teacher, student)
    refuse_size(encoder, stem, teacher.image_size)
    return {
        "encoder": encoder,
        "stem": stem,
        "image_size": teacher.image_size,
        "channels": teacher.channels,
    }


def _student(options: Options, teacher: Parent, student: Parent | None) -> tuple[str, str]:
    """Encoder and stem."""
    size = teacher.image_size
    if student is None:
        asked = choose(options, "student", SMALLER.get(teacher.encoder, teacher.encoder))
        if asked in ("same", teacher.encoder):
            return teacher.encoder, teacher.stem
        return asked, stem_for(asked, size)
    for name in ("image_size", "channels"):
        found, needed = getattr(student, name), getattr(teacher, name)
        if found != needed:
            raise SpecInvalid(
                f"student_model_id: found a model with {name} {found}, the teacher has {needed}; "
                "both see the same images, so these must be equal"
            )
    asked = teacher.encoder if options.get("student") == "same" else options.get("student")
    if is_given(options, "student") and asked != student.encoder:
        raise SpecInvalid(
            f"student: found {options['student']!r}, the model of student_model_id has "
            f"{student.encoder!r}; leave one of them out"
        )
    return student.encoder, student.stem


def _alpha(options: Options, data: DataFacts, teacher: Parent) -> float:
    # Labels beside the teacher's answers gain little (arXiv 2006.10029, table 4).
    alpha = float(choose(options, "alpha", 1.0))
    if alpha == 1:
        return alpha
    known = data.labels_per_class if teacher.classes is None else teacher.classes
    if not set(known) & set(data.labels_per_class):
        found = "no labels" if data.labels == 0 else "no labels of the teacher's classes"
        raise NotEnoughLabels(
            f"alpha: found {alpha:g} and {found} outside the validation and test splits; label "
            "images, or leave alpha at 1, which needs none"
        )
    return alpha
