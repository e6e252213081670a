"""How many views go through a network at once without running out of memory."""

from __future__ import annotations

from core.jobs.plan.facts import Device, Plan
from core.jobs.plan.network import SMALL_IMAGE

IMAGENET_SIZE = 224
# What the backward pass needs of one view in training, in MB: with the stem for ImageNet at
# 224 px, and with the small one at 64 px. Measured with torch.autograd.graph.saved_tensors_hooks
# in single precision (CPU, torch 2.15, the encoder alone, every storage counted once).
SAVED_MB: dict[str, tuple[float, float]] = {
    "resnet10_tiny": (4.5, 0.73),
    "resnet10": (8.4, 1.4),
    "resnet18": (22.2, 18.8),
    "resnet34": (32.3, 31.9),
    "resnet50": (86.0, 102.1),
    "resnet101": (127.1, 155.7),
    "wide_resnet50_2": (112.3, 136.5),
    "mobilenet_v3_small": (16.2, 5.2),
    "mobilenet_v3_large": (44.1, 14.3),
    "efficientnet_b0": (88.3, 28.8),
    "convnext_tiny": (109.2, 35.5),
    "vit_b_16": (117.6, 38.6),
}
# Up to this size the small stem keeps twice the side that it keeps of larger images.
FINER_UP_TO = {"resnet10_tiny": 31, "resnet10": 31, "convnext_tiny": 16, "vit_b_16": 32}
# On CUDA a view takes half, since training runs in bfloat16 there: 12 GB.
BUDGET_MB: dict[Device, float] = {"cpu": 4_000.0, "cuda": 24_000.0}
# However small the network: as many go through at once, 1,024 images with two views each ...
MOST_VIEWS = 2_048
# ... and parts of a larger batch have as many: more are no faster.
VIEWS_AT_ONCE: dict[Device, int] = {"cpu": 512, "cuda": 1_024}
LEAST_IMAGES = 2  # what is measured of a part, batch statistics among it, needs two


def saved_mb(network: Plan) -> float:
    """MB that a view in training takes: activations grow with the positions in the image.

    Args:
        network: `encoder`, `stem` and `image_size`.
    """
    encoder, size = network["encoder"], network["image_size"]
    imagenet, small = SAVED_MB[encoder]
    if network["stem"] != "small":
        return float(imagenet * (size / IMAGENET_SIZE) ** 2)
    finer = 4 if size <= FINER_UP_TO.get(encoder, 0) else 1
    return float(finer * small * (size / SMALL_IMAGE) ** 2)


def micro_batch(network: Plan, device: Device, *, batch: int, views: int) -> int | None:
    """Images of a step that go through the network at once; None if all of them may."""
    fitting = int(BUDGET_MB[device] / saved_mb(network))
    if batch * views <= min(MOST_VIEWS, fitting):
        return None
    images = max(LEAST_IMAGES, min(VIEWS_AT_ONCE[device], fitting) // views)
    return images if images < batch else None
