"""From labelled canvases to a classifier, by the method that is asked for."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.learning.calibration import CALIBRATION_LABELS, Calibration, calibrate
from core.learning.classifier import Classifier
from core.learning.determinism import seed_everything
from core.learning.encoders import Encoder
from core.learning.evaluation import Score, count_correct
from core.learning.finetuning.comparison import Comparison, Decision
from core.learning.finetuning.config import NETWORK_METHODS, FinetuneConfig
from core.learning.finetuning.labelled import Labelled, class_weights, label_warnings
from core.learning.finetuning.phases import Phases
from core.learning.finetuning.setup import Setup
from core.learning.finetuning.trials import HeldOut
from core.learning.heads import ProjectionHead
from core.learning.preprocessing import Preprocessing
from core.learning.run import Run


@dataclass(frozen=True, slots=True)
class Finetuned:
    """A classifier and how it came about.

    Attributes:
        classifier: On the CPU, in eval mode; its head is calibrated.
        report: method, layer, candidates (each with its accuracy), l2, class_weights, temperature,
            calibration_error_before and _after, cross_validation (a `Score` on labels of the
            training set that were held out, or None), trainings (networks that were trained, of
            equal shares of a time budget), warnings (sentences).
        held_out: Predictions of labels that were not trained on, by the whole procedure (the
            choice of method and layer included); None when there are none.
    """

    classifier: Classifier
    report: dict[str, Any]
    held_out: HeldOut | None = None


def finetune(  # noqa: PLR0913 — a stage's inputs; each is a noun of its own
    images_NHWC: NDArray[np.uint8],
    targets_N: NDArray[np.int64],
    encoder: Encoder,
    config: FinetuneConfig,
    preprocessing: Preprocessing,
    *,
    class_count: int,
    run: Run,
    projection: ProjectionHead | None = None,
    validation: tuple[NDArray[np.uint8], NDArray[np.int64]] | None = None,
    other_trainings: int = 0,
) -> Finetuned:
    """Train a classifier on labelled canvases.

    What has to be chosen (method, layer, penalty, temperature) is chosen on labels that were not
    trained on: the validation labels if there are enough of them, else labels that are held out
    for that. A network that trains everything is therefore trained twice when there is no
    validation split: on four fifths to compare and to calibrate, then on all labels.

    Args:
        images_NHWC: uint8 canvases, every one labelled.
        targets_N: Class indices below class_count.
        encoder: Stays as it is; with random weights, set `from_scratch` in the configuration.
        config: See `FinetuneConfig`.
        preprocessing: The encoder's.
        class_count: Classes of the head.
        run: Device, callbacks, checkpoints.
        projection: The projection head that the encoder was pre-trained with; stays as it is.
        validation: Canvases and class indices that are never trained on.
        other_trainings: Trainings outside of this call with which it shares a time budget; all
            have the same share.

    Raises:
        ValueError: Images and targets do not fit together, or the layer is not there.
        Stopped: The run was asked to stop.
        Diverged: The loss became infinite or not a number.
    """
    data = Labelled.of(images_NHWC, targets_N, class_count=class_count)
    if len(data) < 2:
        raise ValueError(f"found {len(data)} images, at least 2 are needed")
    seed_everything(config.seed)
    setup = Setup(
        encoder=copy.deepcopy(encoder).eval(),
        projection=copy.deepcopy(projection),
        config=config,
        preprocessing=preprocessing,
        class_count=class_count,
        weights_K=class_weights(data.targets_N, class_count=class_count, rule=config.class_weights),
        other_trainings=other_trainings,
    )
    warnings = label_warnings(
        data.targets_N, class_count=class_count, weighted=setup.weights_K is not None
    )
    checked = _usable_validation(validation, class_count, warnings)
    comparison = Comparison(setup, data, checked, Phases(run))
    decision = comparison.decide()
    if decision.untried:
        warnings.append(
            f"{' and '.join(decision.untried)} not tried: a fifth of {len(data)} labels is too "
            f"few to compare networks on, {CALIBRATION_LABELS} or more are needed."
        )
    classifier, l2 = comparison.carry_out(decision)
    calibration = _calibrate(classifier, decision, config, warnings)
    report = {
        "method": decision.method,
        "layer": decision.layer,
        "candidates": [trial.to_dict() for trial in decision.trials],
        "l2": l2,
        "class_weights": "none" if setup.weights_K is None else "balanced",
        "temperature": calibration.temperature if calibration else None,
        "calibration_error_before": calibration.error_before if calibration else None,
        "calibration_error_after": calibration.error_after if calibration else None,
        "cross_validation": _cross_validation(decision, checked),
        "trainings": decision.trainings,
        "warnings": warnings,
    }
    return Finetuned(classifier.cpu().eval(), report, decision.held_out)


def _usable_validation(
    given: tuple[NDArray[np.uint8], NDArray[np.int64]] | None,
    class_count: int,
    warnings: list[str],
) -> Labelled | None:
    if given is None or len(given[1]) == 0:
        return None
    validation = Labelled.of(*given, class_count=class_count)
    if len(validation) < CALIBRATION_LABELS:
        warnings.append(
            f"The validation split has only {len(validation)} labels: choices were made on "
            "held-out labels of the training split instead."
        )
        return None
    return validation


def _calibrate(
    classifier: Classifier, decision: Decision, config: FinetuneConfig, warnings: list[str]
) -> Calibration | None:
    """Divide the head by its temperature, so that whoever serves it need not know of it."""
    held = decision.chosen.held_out if decision.chosen else None
    if held is None and decision.method in NETWORK_METHODS:
        warnings.append(
            "No labels were held out: the accuracy was not measured. Add a validation split, or "
            "labels: from about 50 on a fifth is held out when calibrate is true."
        )
    if not config.calibrate:
        return None
    if held is None or len(held.targets_M) < CALIBRATION_LABELS:
        warnings.append(
            f"Fewer than {CALIBRATION_LABELS} labels could be held out: confidences are not "
            "calibrated."
        )
        return None
    calibration = calibrate(held.logits_MK, held.targets_M, held.part_M)
    with torch.no_grad():
        classifier.head.weight.div_(calibration.temperature)
        classifier.head.bias.div_(calibration.temperature)
    return calibration


def _cross_validation(decision: Decision, validation: Labelled | None) -> Score | None:
    held = decision.held_out
    if held is None or validation is not None:
        return None
    return count_correct(held.logits_MK, held.targets_M)
