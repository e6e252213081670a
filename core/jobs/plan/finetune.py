"""The plan of stage 2: a classifier from the labels."""

from __future__ import annotations

from core.errors import NotEnoughLabels, SpecInvalid
from core.jobs.plan.facts import DataFacts, Device, Parent, Plan, require_two_classes
from core.jobs.plan.length import length_plan
from core.jobs.plan.network import augmentation_plan, network_plan
from core.jobs.plan.options import Options, choose, refuse_unused
from core.jobs.plan.rates import ANEW, FURTHER, optimizer_plan, precision

BATCH = 64
LONGEST_WARMUP = 5.0  # epochs
# Below this many labels a class, training everything learns the images by heart.
TRAINABLE_LABELS = 20
EXACT_LABELS = 100_000  # features of more do not fit into memory at once
EXACT_CELLS = 1_000_000  # labels x classes: the exact solver works on some ten float64 of each
IMBALANCE = 3.0
ENCODER_SHARE = 0.1
TRAINING = (
    "epochs",
    "budget_minutes",
    "steps",
    "batch_size",
    "optimizer",
    "learning_rate",
    "encoder_learning_rate",
    "weight_decay",
    "warmup_epochs",
    "clip_grad_norm",
    "precision",
    "augmentation",
    "augmentation_strength",
)
USED: dict[str, frozenset[str]] = {
    "linear": frozenset({"solver", "class_weights", "calibrate"}),
    "prototype": frozenset({"calibrate"}),
    "full": frozenset({"class_weights", "calibrate", "label_smoothing", *TRAINING}),
    "supcon": frozenset(
        {"solver", "class_weights", "calibrate", "temperature", "views", *TRAINING}
    ),
}
FROZEN = ("linear", "prototype")


def plan_finetune(
    options: Options, data: DataFacts, device: Device, *, parent: Parent | None
) -> Plan:
    """Resolve a finetuning job; without a parent it trains from the weights that `init` names.

    `method` and `layer` stay "auto" where labels held back decide while the job runs; then
    `candidates` are the methods that it compares. Only options that the job uses are listed.

    Raises:
        NotEnoughLabels: Fewer than two classes have labels.
        SpecInvalid: Options contradict each other, the parent or the number of labels.
    """
    _require_labels(data)
    network = network_plan(options, data, device, parent=parent)
    pretrained = parent is not None or network["init"] == "imagenet"
    method, candidates = _method(options, data, pretrained=pretrained)
    baseline = _baseline(options, pretrained=pretrained)
    used = frozenset().union(*(USED[name] for name in candidates))
    _refuse_dead(options, method, used | (USED["full"] if baseline else frozenset()))
    layer = _layer(options, parent)
    values = _values(options, data, device, network, pretrained=pretrained)
    return {
        "stage": "finetune",
        "device": device,
        "images": data.labels,
        "classes": len(data.labels_per_class),
        **network,
        "from_scratch": not pretrained,
        "method": method,
        **({"candidates": candidates} if method == "auto" else {}),
        "layer": layer,
        **{name: value for name, value in values.items() if name in used},
        "baseline": baseline,
        **({"baseline_plan": _baseline_plan(options, data, device, network)} if baseline else {}),
        "seed": values["seed"],
    }


def _require_labels(data: DataFacts) -> None:
    require_two_classes(data, purpose="dataset_id")
    missing = sorted(set(data.classes) - set(data.labels_per_class))
    if missing:
        raise NotEnoughLabels(
            f"dataset_id: the classes {', '.join(map(repr, missing[:10]))} have labels only on "
            "validation or test images, which are not trained on; label more images of them"
        )


def _method(options: Options, data: DataFacts, *, pretrained: bool) -> tuple[str, list[str]]:
    """The method, and the methods that may come of it."""
    method = choose(options, "method", "auto" if pretrained else "full")
    if not pretrained and method in FROZEN:
        raise SpecInvalid(
            f"method: found {method!r} without model_id or needs; nothing can be told from "
            "random weights that stay as they are, 'full' trains the whole network from scratch"
        )
    if method != "auto":
        return method, [method]
    trainable = data.fewest_labels >= TRAINABLE_LABELS
    return "auto", ["linear", "prototype", *(["full", "supcon"] if trainable else [])]


def _baseline(options: Options, *, pretrained: bool) -> bool:
    asked = bool(choose(options, "baseline", False))
    if asked and not pretrained:
        raise SpecInvalid(
            "baseline: found true in a job that starts from random weights, which is the "
            "baseline itself; leave it out"
        )
    return asked


def _baseline_plan(options: Options, data: DataFacts, device: Device, network: Plan) -> Plan:
    """The same labels, network and options, but random weights."""
    own = {name: value for name, value in options.items() if name != "encoder_learning_rate"}
    values = _values(own, data, device, network, pretrained=False)
    return {
        **network,
        "init": "random",
        "from_scratch": True,
        "method": "full",
        "layer": "encoder",
        **{name: value for name, value in values.items() if name in USED["full"]},
        "seed": values["seed"],
    }


def _refuse_dead(options: Options, method: str, used: frozenset[str]) -> None:
    # With "auto" an option is for the case that a method which uses it is chosen.
    if method == "auto":
        return
    dead = sorted(frozenset().union(*USED.values()) - used)
    refuse_unused(options, dead, reason=f"which method {method!r} does not use")


def _layer(options: Options, parent: Parent | None) -> str:
    there = parent is not None and parent.has_projection
    layer = str(choose(options, "layer", "auto" if there else "encoder"))
    if layer == "projection" and not there:
        found = "without model_id or needs" if parent is None else "with a model without one"
        raise SpecInvalid(
            f"layer: found 'projection' {found}; the first layer of the projection head comes "
            "from a pretrain job, 'encoder' is always there"
        )
    return layer


def _class_weights(data: DataFacts) -> str:
    most = max(data.labels_per_class.values())
    return "balanced" if most > IMBALANCE * data.fewest_labels else "none"


def _solver(data: DataFacts) -> str:
    cells = data.labels * len(data.labels_per_class)
    return "lbfgs" if data.labels <= EXACT_LABELS and cells <= EXACT_CELLS else "sgd"


def _values(
    options: Options, data: DataFacts, device: Device, network: Plan, *, pretrained: bool
) -> Plan:
    """Every option of every method."""
    return {
        "solver": choose(options, "solver", _solver(data)),
        "class_weights": choose(options, "class_weights", _class_weights(data)),
        "calibrate": choose(options, "calibrate", True),
        "temperature": choose(options, "temperature", 0.1),  # arXiv 2004.11362, section 4
        "views": choose(options, "views", 2),
        "label_smoothing": float(choose(options, "label_smoothing", 0.0)),
        **_training(options, data, encoder=network["encoder"], pretrained=pretrained),
        "precision": precision(options, device),
        **augmentation_plan(options, data, network["image_size"]),
        "seed": choose(options, "seed", 0),
    }


def _training(options: Options, data: DataFacts, *, encoder: str, pretrained: bool) -> Plan:
    """What decides how the network itself is trained."""
    batch = _batch(options, data)
    rates = optimizer_plan(
        {**options, "lr_scaling": "none"},
        encoder=encoder,
        batch=batch,
        rates=FURTHER if pretrained else ANEW,
        weight_decay=1e-2,
    )
    length = length_plan(
        options,
        "full" if pretrained else "scratch",
        images=data.labels,
        batch=batch,
        device="cpu",  # labels are few on any device
        longest_warmup=LONGEST_WARMUP,
    )
    slower = pretrained and rates["optimizer"] == "adamw"
    rate = rates["learning_rate"]
    encoder_rate = float(f"{rate * ENCODER_SHARE:.4g}") if slower else rate
    return {
        "batch_size": batch,
        **length,
        **rates,
        "encoder_learning_rate": choose(options, "encoder_learning_rate", encoder_rate),
    }


def _batch(options: Options, data: DataFacts) -> int:
    asked = choose(options, "batch_size", min(BATCH, data.labels))
    if asked > data.labels:
        raise SpecInvalid(
            f"batch_size: found {asked}, the dataset has {data.labels} labels to train on; "
            f"at most {data.labels} is allowed"
        )
    return int(asked)
