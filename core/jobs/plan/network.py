"""Encoder, stem, first weights and input of a stage, and the augmentation that suits the images."""

from __future__ import annotations

from core.errors import SpecInvalid
from core.jobs.plan.facts import DataFacts, Device, Parent, Plan
from core.jobs.plan.options import Options, choose, is_given, refuse_unused

MIN_IMAGE_SIZE = 8
MAX_IMAGE_SIZE = {"cpu": 64, "cuda": 224}
SMALL_GREY = 32  # pixels: digits, letters, stamps rather than scenes
SMALL_IMAGE = 64  # up to here a stem for 224 px throws detail away
OWN_ENCODERS = ("resnet10_tiny", "resnet10")  # of this project: nobody trained them on ImageNet
MOBILE = ("mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0")  # made for speed
VIT_PATCH = 16
CONVNEXT_LEAST = 32
SMALLER = {
    "resnet10_tiny": "resnet10_tiny",
    "resnet10": "resnet10_tiny",
    "resnet18": "resnet10",
    "resnet34": "resnet18",
    "resnet50": "resnet18",
    "resnet101": "resnet50",
    "wide_resnet50_2": "resnet50",
    "mobilenet_v3_small": "resnet10_tiny",
    "mobilenet_v3_large": "mobilenet_v3_small",
    "efficientnet_b0": "mobilenet_v3_small",
    "convnext_tiny": "resnet18",
    "vit_b_16": "resnet50",
}


def network_plan(
    options: Options, data: DataFacts, device: Device, *, parent: Parent | None
) -> Plan:
    """Encoder, stem, image size and channels; `init` only where there is no parent.

    Raises:
        SpecInvalid: What was asked for contradicts the parent, has no such weights, or cannot
            take images of this size.
    """
    if parent is not None:
        _refuse_contradictions(options, parent)
        return inherited(parent)
    size = choose(options, "image_size", _image_size(data, device, options.get("encoder")))
    encoder = choose(options, "encoder", _encoder(size, device, options.get("init")))
    stem = choose(options, "stem", stem_for(encoder, size))
    init = choose(options, "init", "random")
    if init == "imagenet" and encoder in OWN_ENCODERS:
        allowed = ", ".join(sorted(set(SMALLER) - set(OWN_ENCODERS)))
        raise SpecInvalid(
            f"init: found 'imagenet', there are no such weights for encoder {encoder!r}; "
            f"they exist for {allowed}"
        )
    refuse_size(encoder, stem, size)
    return {
        "encoder": encoder,
        "stem": stem,
        "init": init,
        "image_size": size,
        "channels": 1 if data.greyscale else 3,
    }


def inherited(parent: Parent) -> Plan:
    """The network and the input of the parent."""
    names = ("encoder", "stem", "image_size", "channels")
    return {name: getattr(parent, name) for name in names}


def parent_of(plan: Plan) -> Parent:
    """What a planned job will leave behind.

    Plans of the first version name no stem and no projection: "auto" decided of the one, and
    whether the other was kept is not known.
    """
    encoder, size, pretrains = plan["encoder"], plan["image_size"], plan["stage"] == "pretrain"
    return Parent(
        "encoder" if pretrains else "classifier",
        encoder,
        size,
        plan["channels"],
        plan.get("stem") or stem_for(encoder, size),
        has_projection=pretrains and "projection_layers" in plan,
    )


def stem_for(encoder: str, image_size: int) -> str:
    """The stem that suits the size (arXiv 2002.05709, B.9: 3x3, stride 1, no pooling at 32 px)."""
    limit = SMALL_IMAGE // 2 if encoder in MOBILE else SMALL_IMAGE
    return "small" if image_size <= limit else "imagenet"


def augmentation_plan(options: Options, data: DataFacts, size: int) -> Plan:
    """A preset and its strength."""
    # What may have a right way round is not mirrored: a symmetry that was not used costs less
    # than one that is not there.
    grey = "document" if size <= SMALL_GREY else "greyscale"
    automatic = grey if data.greyscale else "small" if size <= SMALL_IMAGE else "photo"
    return {
        "augmentation": choose(options, "augmentation", automatic),
        "augmentation_strength": float(choose(options, "augmentation_strength", 1.0)),
    }


def _image_size(data: DataFacts, device: Device, asked_encoder: object) -> int:
    # The images' own size, as a multiple of what the strides divide by: enlarging adds nothing.
    native = (data.median_short_side + 4) // 8 * 8
    size = min(MAX_IMAGE_SIZE[device], max(MIN_IMAGE_SIZE, native))
    whole_patches = asked_encoder == "vit_b_16" and size > SMALL_IMAGE
    return size // VIT_PATCH * VIT_PATCH if whole_patches else size


def _encoder(image_size: int, device: Device, init: object) -> str:
    if device == "cpu":
        return "resnet18" if init == "imagenet" else "resnet10"
    return "resnet18" if image_size <= SMALL_IMAGE else "resnet50"


def refuse_size(encoder: str, stem: str, size: int) -> None:
    """Raise SpecInvalid for a size that the encoder cannot cut into patches."""
    if encoder == "vit_b_16":
        patch = VIT_PATCH if stem == "imagenet" else 4 if size <= SMALL_IMAGE // 2 else 8
        if size % patch:
            raise SpecInvalid(
                f"image_size: found {size}, encoder 'vit_b_16' cuts the image into patches of "
                f"{patch} pixels; multiples of {patch} are allowed"
            )
    if encoder == "convnext_tiny" and stem == "imagenet" and size < CONVNEXT_LEAST:
        raise SpecInvalid(
            f"image_size: found {size}, encoder 'convnext_tiny' with stem 'imagenet' needs at "
            f"least {CONVNEXT_LEAST}; take stem 'small' for small images"
        )


def _refuse_contradictions(options: Options, parent: Parent) -> None:
    for name in ("encoder", "stem", "image_size"):
        asked, found = choose(options, name, None), getattr(parent, name)
        if is_given(options, name) and asked != found:
            raise SpecInvalid(
                f"{name}: found {asked!r}, the model that the job starts from has {found!r}; "
                "leave it out, or start without a model"
            )
    refuse_unused(options, ["init"], reason="the model that the job starts from has its weights")
