"""Stage 2: an encoder and few labels → a classifier; without an encoder, training from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.learning.architecture import Architecture
from core.learning.determinism import seed_everything
from core.learning.encoders import Encoder, create_encoder
from core.learning.evaluation import (
    count_correct,
    expected_calibration_error,
    require_usable,
)
from core.learning.finetuning import FinetuneConfig, Finetuned, Phases, finetune
from core.learning.finetuning.config import NETWORK_METHODS
from core.learning.finetuning.trials import HeldOut
from core.learning.heads import ProjectionHead
from core.learning.preprocessing import Preprocessing
from core.stages.baseline import (
    Finetuning,
    baseline_trainings,
    config_again,
    config_of,
    measure_baseline,
)
from core.stages.context import StageContext
from core.stages.labelled import LabelledImages, labelled_images, labelled_items, with_targets
from core.stages.measures import add_by_class, evaluate
from core.stages.outcome import Outcome, measured
from core.stages.parent import ParentModel

KNOWN = (
    "The encoder has learnt from labels before, perhaps from these: what was chosen and measured "
    "on held-out labels flatters it. A test split tells how good it is."
)
CROSS_FITTED = "validation split, cross-fitted: a fifth by the candidate that the others chose"


@dataclass(frozen=True, slots=True)
class Start:
    """Where finetuning begins, and the images as it sees them."""

    encoder: Encoder
    projection: ProjectionHead | None
    preprocessing: Preprocessing
    labelled: LabelledImages


def run_finetune(context: StageContext) -> Outcome:
    """Train a classifier on the labels of the train split and measure it on what it has not seen.

    Every class has labels in the train split: the plan refuses others. Labels of the validation
    split serve to choose method, layer and temperature, those of the test split only to measure.
    A time budget is for all networks that the job trains, the baseline's included, in equal shares.
    """
    plan, parent = context.job.plan, context.parent()
    start = _start(context, parent)
    config, phases = config_of(plan), Phases(context.run())
    train = start.labelled.split("train")
    others = baseline_trainings(start.labelled, config) if plan.get("baseline") else 0
    finetuned = finetune(
        *train,
        start.encoder,
        config,
        start.preprocessing,
        class_count=len(start.labelled.classes),
        run=phases.begin(None),
        projection=start.projection,
        validation=start.labelled.split("validation"),
        other_trainings=others,
    )
    classifier = finetuned.classifier
    require_usable(classifier, train[0], start.preprocessing, device=context.device)
    metrics = evaluate(classifier, start.labelled, start.preprocessing, context.device)
    _add_report(metrics, finetuned, start.labelled.classes)
    known = parent is not None and parent.knows_labels
    metrics["knows_labels"] = known or metrics["method"] in NETWORK_METHODS
    if known and metrics["cross_validation"] is not None:
        metrics["warnings"].append(KNOWN)
        metrics["cross_validation"]["method"] += ", by an encoder that knows labels"
    trainings = others + finetuned.report["trainings"]
    metrics["baseline"] = None
    if others:
        metrics["baseline"] = _baseline(start, config, plan, metrics, phases, trainings)
    return Outcome(
        architecture=Architecture(
            encoder=plan["encoder"],
            image_size=plan["image_size"],
            channels=plan["channels"],
            class_count=len(start.labelled.classes),
            stem=plan.get("stem", "auto"),
            hidden_dim=None if classifier.hidden is None else classifier.head.in_features,
        ),
        module=classifier.cpu(),
        preprocessing=start.preprocessing,
        config=config.to_dict(),
        metrics=metrics,
        classes=list(start.labelled.classes),
        parent=parent,
    )


def _start(context: StageContext, parent: ParentModel | None) -> Start:
    classes = sorted(
        {item.label for item in context.items() if item.label is not None and item.split == "train"}
    )
    if parent is not None:
        labelled = labelled_images(context, parent.preprocessing, classes)
        return Start(parent.encoder, parent.projection, parent.preprocessing, labelled)
    plan, items = context.job.plan, labelled_items(context, classes)
    preprocessing, images_NHWC = context.new_preprocessing(items)
    seed_everything(plan["seed"])
    encoder = create_encoder(
        plan["encoder"],
        image_size=plan["image_size"],
        channels=plan["channels"],
        stem=plan.get("stem", "auto"),
        init=plan.get("init", "random"),
    )
    return Start(encoder, None, preprocessing, with_targets(items, images_NHWC, classes))


def _add_report(metrics: dict[str, Any], finetuned: Finetuned, classes: Sequence[str]) -> None:
    """What was chosen and why; predictions of held-out labels where there is no validation."""
    report, held = finetuned.report, finetuned.held_out
    names = ("method", "layer", "candidates", "l2", "class_weights", "warnings")
    metrics.update({name: report[name] for name in names})
    metrics["calibration"] = report["temperature"] and {
        "temperature": report["temperature"],
        "error_before": report["calibration_error_before"],
        "error_after": report["calibration_error_after"],
        "method": held and f"cross-fitted on: {held.method}",
    }
    metrics["cross_validation"] = None
    if held is None:
        return
    if report["cross_validation"] is not None:
        metrics["cross_validation"] = measured(report["cross_validation"], method=held.method)
        add_by_class(metrics, "cross_validation", held.logits_MK, held.targets_M, classes)
    else:
        _unflatter(metrics, held, classes)


def _unflatter(metrics: dict[str, Any], held: HeldOut, classes: Sequence[str]) -> None:
    """Figures of a validation split on which candidates or a temperature were chosen, too.

    Measured after the fact on the same labels, the winner would look better than it is.
    """
    if len(metrics["candidates"]) > 1:
        score = count_correct(held.logits_MK, held.targets_M)
        metrics["validation"] = {
            **(measured(score, method=CROSS_FITTED) or {}),
            "calibration_error": expected_calibration_error(held.logits_MK, held.targets_M),
        }
        add_by_class(metrics, "validation", held.logits_MK, held.targets_M, classes)
    if metrics["calibration"]:
        metrics["validation"]["calibration_error"] = metrics["calibration"]["error_after"]


def _baseline(
    start: Start,
    config: FinetuneConfig,
    plan: Mapping[str, Any],
    metrics: Mapping[str, Any],
    phases: Phases,
    trainings: int,
) -> dict[str, Any] | None:
    finetuning = Finetuning(
        config=config_again(config, method=metrics["method"], layer=metrics["layer"]),
        start={"encoder": start.encoder, "projection": start.projection},
        preprocessing=start.preprocessing,
        labelled=start.labelled,
        trainings=trainings,
    )
    return measure_baseline(finetuning, plan["baseline_plan"], metrics, phases)
