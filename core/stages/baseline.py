"""What the same labels are worth without pre-training, measured on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.learning.augmentations import PRESETS
from core.learning.determinism import seed_everything
from core.learning.encoders import create_encoder
from core.learning.evaluation import Score, count_correct, predict_logits
from core.learning.finetuning import FinetuneConfig, Phases, finetune
from core.learning.finetuning.config import HEAD_METHODS, NETWORK_METHODS
from core.learning.logistic import held_out_folds
from core.learning.preprocessing import Preprocessing
from core.learning.run import Run
from core.stages.context import Pixels
from core.stages.labelled import LabelledImages
from core.stages.outcome import measured

ROUNDS = 2
FOLDS = 5
Labels = tuple[Pixels, NDArray[np.int64]]
METHOD = f"{ROUNDS} held-out fifths of the labels"


def config_of(plan: Mapping[str, Any]) -> FinetuneConfig:
    """The configuration that a plan says; what it does not name takes the default."""
    names = {field.name for field in fields(FinetuneConfig)} - {"augmentation"}
    values = {name: plan[name] for name in names if plan.get(name) is not None}
    if "candidates" in values:
        values["candidates"] = tuple(values["candidates"])
    if "method" not in values and "train" in plan:  # planned by an older version
        values["method"] = "full" if plan["train"] == "full" else "linear"
    if "augmentation" in plan:
        preset = PRESETS[plan["augmentation"]]
        values["augmentation"] = preset.scaled(plan.get("augmentation_strength", 1.0))
    return FinetuneConfig(**values)


def config_again(config: FinetuneConfig, *, method: str, layer: str) -> FinetuneConfig:
    """How to finetune on a part of the labels, after all of them came to this method and layer.

    Heads are compared anew on the part: a choice that has seen the other labels would flatter. A
    network is not, since each candidate would have to be trained again.
    """
    if method not in HEAD_METHODS:
        return replace(config, method=method, layer=layer)
    if config.method != "auto":
        return config
    allowed = config.candidates or HEAD_METHODS
    return replace(config, candidates=tuple(name for name in HEAD_METHODS if name in allowed))


@dataclass(frozen=True, kw_only=True, slots=True)
class Finetuning:
    """What the baseline is compared with.

    Attributes:
        config: How to finetune again, see `config_again`.
        start: Where it began; `finetune` takes these by name.
        preprocessing: Its own, and the baseline's.
        labelled: Its labels.
        trainings: Networks that the whole job trains; each has the same share of a time budget.
    """

    config: FinetuneConfig
    start: Mapping[str, Any]
    preprocessing: Preprocessing
    labelled: LabelledImages
    trainings: int


def baseline_trainings(labelled: LabelledImages, config: FinetuneConfig) -> int:
    """Networks that `measure_baseline` trains, at most."""
    if labelled.count("test") or labelled.count("validation"):
        return 1
    tried = config.candidates or NETWORK_METHODS if config.method == "auto" else (config.method,)
    again = any(name in NETWORK_METHODS for name in tried)
    return ROUNDS * (2 if again else 1)


def measure_baseline(
    finetuning: Finetuning, plan: Mapping[str, Any], metrics: Mapping[str, Any], phases: Phases
) -> dict[str, Any] | None:
    """Accuracy of the same network trained from random weights on the same labels.

    "finetuned" is the accuracy of the finetuned classifier on the same images: on the test split,
    else the validation split; else both are trained again without a fifth of the labels that they
    are then asked for, twice. A time budget is for the whole job: every network that it trains,
    finetuned or from random weights, has the same share (`Finetuning.trainings`).

    Args:
        finetuning: What to compare with.
        plan: Of the baseline.
        metrics: Of the finetuned classifier.
        phases: For reports and checkpoints.
    """
    for split in ("test", "validation"):
        if metrics[split] is not None:
            score = _scratch(finetuning, plan, split, phases)
            found = measured(score, method=f"{split} split, from random weights")
            return found and {**found, "finetuned": metrics[split]}
    rounds = _rounds(finetuning, plan, phases)
    if rounds is None:
        return None
    scratch, finetuned = rounds
    found = measured(scratch, method=f"{METHOD}, from random weights")
    return found and {**found, "finetuned": measured(finetuned, method=METHOD)}


def _scratch(finetuning: Finetuning, plan: Mapping[str, Any], split: str, phases: Phases) -> Score:
    labelled = finetuning.labelled
    train, test = labelled.split("train"), labelled.split(split)
    run = phases.begin("training the baseline", folder="baseline")
    return _score(finetuning, config_of(plan), _random(plan), train, test, run)


def _rounds(
    finetuning: Finetuning, plan: Mapping[str, Any], phases: Phases
) -> tuple[Score, Score] | None:
    images_NHWC, targets = finetuning.labelled.split("train")
    fold = held_out_folds(
        torch.from_numpy(targets), folds=FOLDS, seed=finetuning.config.seed
    ).numpy()
    scratch, finetuned = Score(0, 0), Score(0, 0)
    for number in range(ROUNDS):
        kept, held = fold != number, fold == number
        if not held.any():
            continue
        train = images_NHWC[kept], targets[kept]
        test = images_NHWC[held], targets[held]
        run = phases.begin("training the baseline", folder=f"baseline-{number}")
        scratch = _sum(
            scratch, _score(finetuning, config_of(plan), _random(plan), train, test, run)
        )
        run = phases.begin("comparing with the baseline", folder=f"compared-{number}")
        score = _score(finetuning, finetuning.config, finetuning.start, train, test, run)
        finetuned = _sum(finetuned, score)
    return (scratch, finetuned) if scratch.total else None


def _random(plan: Mapping[str, Any]) -> dict[str, Any]:
    seed_everything(plan["seed"])
    encoder = create_encoder(
        plan["encoder"],
        image_size=plan["image_size"],
        channels=plan["channels"],
        stem=plan.get("stem", "auto"),
    )
    return {"encoder": encoder}


def _score(
    finetuning: Finetuning,
    config: FinetuneConfig,
    start: Mapping[str, Any],
    train: Labels,
    test: Labels,
    run: Run,
) -> Score:
    finetuned = finetune(
        *train,
        config=replace(
            config,
            calibrate=False,  # scaling does not change which class is largest
            budget_minutes=config.budget_minutes and config.budget_minutes / finetuning.trainings,
        ),
        preprocessing=finetuning.preprocessing,
        class_count=len(finetuning.labelled.classes),
        run=run,
        **start,
    )
    logits_NK = predict_logits(
        finetuned.classifier, test[0], finetuning.preprocessing, device=run.device
    )
    return count_correct(logits_NK, torch.from_numpy(test[1]))


def _sum(one: Score, other: Score) -> Score:
    return Score(one.correct + other.correct, one.total + other.total)
