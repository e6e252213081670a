"""Accuracy of the demo's models on the held-out images, through /predict and /embed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from core.client import Job, Model, ServiceClient, ServiceRefused
from core.demo.draw import Draw
from core.demo.images import Sample
from core.demo.report import CLASSIFIERS, Accuracy, Row, accuracy_of

PART = 64
EMBEDDED_CLASSES = 4
ORDER = ("scratch", "pretrain", "finetune", "distill")


@dataclass(frozen=True, slots=True)
class Measured:
    """A row for each model, and what its accuracy was measured on."""

    rows: list[Row]
    measured_on: str


def measure(
    client: ServiceClient,
    jobs: Mapping[str, Job],
    draw: Draw,
    *,
    note: Callable[[str], None],
    call: Callable[[str, str], None],
    check: Callable[[], None],
) -> Measured:
    """Ask the models of the jobs about the held-out images.

    With no held-out image the finetuned classifier has the service's own cross-validated
    accuracy, if there were labels enough for one; the others have none.
    """
    models = {name: client.model(job.model_id or "") for name, job in jobs.items()}
    _tell_embeddings(client, models["pretrain"], draw, call)
    accuracies: dict[str, Accuracy | None] = dict.fromkeys(ORDER)
    if draw.held_out:
        for name in CLASSIFIERS:
            accuracies[name] = _accuracy(client, models[name], draw.held_out, check, note)
        call("POST /predict", f"{len(draw.held_out):,} held-out images, {len(CLASSIFIERS)} models")
        measured_on = f"on {len(draw.held_out):,} held-out images"
    else:
        note("no labelled image is left to measure on; the accuracy of finetune is the service's")
        note("own from cross-validation of its head; the others cannot be measured")
        accuracies["finetune"] = _cross_validated(models["finetune"])
        measured_on = "from cross-validation"
    rows = [Row(name, models[name], accuracies[name], jobs[name].seconds or 0.0) for name in ORDER]
    return Measured(rows, measured_on)


def _accuracy(
    client: ServiceClient,
    model: Model,
    held_out: Sequence[Sample],
    check: Callable[[], None],
    note: Callable[[str], None],
) -> Accuracy:
    correct = total = 0
    unreadable: list[str] = []
    for start in range(0, len(held_out), PART):
        check()
        part = held_out[start : start + PART]
        answers = client.predict(model.id, [sample.path for sample in part])
        for sample, answer in zip(part, answers, strict=True):
            if answer.reason is not None:
                unreadable.append(f"{sample.name}: {answer.reason}")
                continue
            total += 1
            correct += answer.label == sample.label
    if total == 0:
        raise ServiceRefused(f"no held-out image can be used; {unreadable[0]}")
    if unreadable:
        note(f"{len(unreadable):,} held-out images are not counted; {unreadable[0]}")
    return accuracy_of(correct, total)


def _cross_validated(model: Model) -> Accuracy | None:
    found = model.metrics.get("cross_validation")
    return accuracy_of(found["correct"], found["total"]) if found else None


def _tell_embeddings(
    client: ServiceClient, model: Model, draw: Draw, call: Callable[[str, str], None]
) -> None:
    chosen = _two_of_each(draw.held_out) or _two_of_each(draw.training) or draw.training[:2]
    vectors = client.embed(model.id, [sample.path for sample in chosen])
    same: list[float] = []
    other: list[float] = []
    for (a, vector_a), (b, vector_b) in combinations(zip(chosen, vectors, strict=True), 2):
        cosine = sum(x * y for x, y in zip(vector_a, vector_b, strict=True))
        (same if a.label == b.label else other).append(cosine)
    told = f"{len(chosen)} vectors of {len(vectors[0])} numbers"
    if same and other:
        means = sum(same) / len(same), sum(other) / len(other)
        told += f"; cosine {means[0]:.2f} in a class, {means[1]:.2f} between classes"
    call("POST /embed", told)


def _two_of_each(samples: Sequence[Sample]) -> list[Sample]:
    by_class: dict[str | None, list[Sample]] = {}
    for sample in samples:
        by_class.setdefault(sample.label, []).append(sample)
    pairs = [part[:2] for part in by_class.values() if len(part) > 1]
    return [sample for pair in pairs[:EMBEDDED_CLASSES] for sample in pair]
