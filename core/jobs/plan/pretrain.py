"""The plan of stage 1: an encoder from all images."""

from __future__ import annotations

from core.errors import SpecInvalid
from core.jobs.plan.facts import DataFacts, Device, Parent, Plan, require_two_classes
from core.jobs.plan.length import batch_of_all, length_plan
from core.jobs.plan.memory import micro_batch
from core.jobs.plan.network import SMALL_GREY, SMALL_IMAGE, augmentation_plan, network_plan
from core.jobs.plan.options import Options, choose, refuse_unused
from core.jobs.plan.rates import PRETRAIN, optimizer_plan, precision

LONGEST_WARMUP = {"adamw": 2.0, "sgd": 2.0, "lars": 10.0}  # epochs
LABEL_SHARE = 0.25
# Where only time counts, a CPU takes more steps of fewer images: with as many views a small encoder
# gained a point by it, the long run of the label benchmark next to nothing (docs/benchmarks.md).
BUDGET_BATCH = 64


def plan_pretrain(
    options: Options, data: DataFacts, device: Device, *, parent: Parent | None = None
) -> Plan:
    """Resolve a pre-training job; with a parent it goes on from that encoder.

    Raises:
        NotEnoughImages: Fewer images than a batch.
        NotEnoughLabels: Labels are to be used, and fewer than two classes have any.
        SpecInvalid: Options contradict each other or the parent.
    """
    batch, views = _batch(options, data, device), int(choose(options, "views", 2))
    network = network_plan(options, data, device, parent=parent)
    size: int = network["image_size"]
    return {
        "stage": "pretrain",
        "device": device,
        "images": data.images,
        **network,
        "views": views,
        **_loss(options, data),
        "temperature": choose(options, "temperature", _temperature(data, size)),
        **_projection(options, device, size),
        "batch_size": batch,
        "micro_batch_size": _micro_batch(
            options, batch, micro_batch(network, device, batch=batch, views=views)
        ),
        **_training(options, data, device, encoder=network["encoder"], batch=batch),
        "precision": precision(options, device),
        **augmentation_plan(options, data, size),
        "plateau_patience": choose(options, "plateau_patience", None),
        "seed": choose(options, "seed", 0),
    }


def _batch(options: Options, data: DataFacts, device: Device) -> int:
    hurried = device == "cpu" and choose(options, "budget_minutes", None) is not None
    return batch_of_all(options, data, automatic=BUDGET_BATCH if hurried else None)


def _training(
    options: Options, data: DataFacts, device: Device, *, encoder: str, batch: int
) -> Plan:
    """Length and optimizer."""
    optimizer = optimizer_plan(
        options,
        encoder=encoder,
        batch=batch,
        rates=PRETRAIN,
        weight_decay=1e-4,
        automatic="adamw" if device == "cpu" else "lars",
    )
    length = length_plan(
        options,
        "pretrain",
        images=data.images,
        batch=batch,
        device=device,
        longest_warmup=LONGEST_WARMUP[optimizer["optimizer"]],
    )
    return {**length, **optimizer}


def _loss(options: Options, data: DataFacts) -> Plan:
    use_labels = bool(choose(options, "use_labels", False))
    if not use_labels:
        refuse_unused(options, ["label_share"], reason="which does nothing without use_labels")
        return {"loss": choose(options, "loss", "nt_xent"), "use_labels": False}
    require_two_classes(data, purpose="use_labels")
    # With several positives an anchor, L_out (arXiv 2004.11362, table 1); with two views and no
    # label it is NT-Xent.
    return {
        "loss": choose(options, "loss", "supcon"),
        "use_labels": True,
        "label_share": choose(options, "label_share", LABEL_SHARE),
    }


def _temperature(data: DataFacts, size: int) -> float:
    if data.greyscale and size <= SMALL_GREY:
        return 1.0  # measured: docs/benchmarks.md
    return 0.5 if size <= SMALL_IMAGE else 0.2  # arXiv 2002.05709, appendix B.9 and table 5


def _projection(options: Options, device: Device, size: int) -> Plan:
    # SimCLRv2 (arXiv 2006.10029, section 2) for encoders of its kind; the first paper's head
    # with half the width for small ones.
    large = device == "cuda" and size > SMALL_IMAGE
    return {
        "projection_dim": choose(options, "projection_dim", 128 if large else 64),
        "projection_layers": choose(options, "projection_layers", 3 if large else 2),
    }


def _micro_batch(options: Options, batch: int, automatic: int | None) -> int | None:
    asked: int | None = choose(options, "micro_batch_size", automatic)
    if asked is not None and asked > batch:
        raise SpecInvalid(
            f"micro_batch_size: found {asked}, a step has {batch} images (batch_size); "
            f"at most {batch} is allowed, and null takes them at once"
        )
    return asked
