"""The plans of what is done with a model that is there: embed a dataset, evaluate on it."""

from __future__ import annotations

from core.errors import NotEnoughImages, NotEnoughLabels, WrongModelKind
from core.jobs.plan.facts import Device, Parent, Plan
from core.jobs.plan.options import Options, choose

# Looking at every vector takes some milliseconds up to here: no index is worth its upkeep.
WORTH_AN_INDEX = 10_000
BATCH = {"cpu": 64, "cuda": 256}


def plan_embed(options: Options, device: Device, *, parent: Parent, images: int) -> Plan:
    """Resolve an embed job; `images` is all of the dataset, those of the test split too.

    Raises:
        NotEnoughImages: The dataset is empty.
    """
    if images < 1:
        raise NotEnoughImages("dataset_id: found a dataset without images; at least 1 is needed")
    worth = "hnsw" if images >= WORTH_AN_INDEX else "none"
    return {
        "stage": "embed",
        "device": device,
        "images": images,
        "encoder": parent.encoder,
        "image_size": parent.image_size,
        "batch_size": choose(options, "batch_size", BATCH[device]),
        "index": choose(options, "index", worth),
    }


def plan_evaluate(options: Options, device: Device, *, parent: Parent, labels: int) -> Plan:
    """Resolve an evaluation; `labels` is all labelled images of the dataset.

    Raises:
        NotEnoughLabels: Nothing is labelled.
        WrongModelKind: The model has no classes.
    """
    if parent.kind != "classifier":
        raise WrongModelKind("model_id: found an encoder; only a classifier can be evaluated")
    if labels < 1:
        raise NotEnoughLabels("dataset_id: found no labels; an evaluation compares with labels")
    return {
        "stage": "evaluate",
        "device": device,
        "images": labels,
        "encoder": parent.encoder,
        "image_size": parent.image_size,
        "batch_size": choose(options, "batch_size", BATCH[device]),
        "split": options.get("split", "all"),
    }
