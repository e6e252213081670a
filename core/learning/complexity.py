"""What a model costs: parameters, multiply-adds, images a second."""

from __future__ import annotations

import copy
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from core.learning.preprocessing import Preprocessing

LARGEST_BATCH = 64
MEASURE_SECONDS = 0.5


def count_parameters(module: nn.Module) -> int:
    """Trained values; the running statistics of batch normalisation are none."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(module: nn.Module, image_size: int, channels: int) -> int:
    """Multiplications with an addition that one image costs, as papers count them.

    Convolutions and matrix products only: ResNet-50 at 224 px has 4.1e9 (arXiv 1512.03385,
    table 1, says 3.8e9 for its first version). Shapes alone are computed with, no values.

    Args:
        module: Takes images, (B, channels, image_size, image_size); stays as it is.
        image_size: Side length in pixels.
        channels: Of the images.
    """
    shapes = copy.deepcopy(module).to("meta").eval()
    image_1CHW = torch.empty(1, channels, image_size, image_size, device="meta")
    with FlopCounterMode(display=False) as counter:
        shapes(image_1CHW)
    operations: int = counter.get_total_flops()
    return operations // 2


@torch.inference_mode()
def throughput(module: nn.Module, preprocessing: Preprocessing, device: str = "cpu") -> float:
    """Images a second from canvases to outputs on this machine, in batches of up to 64.

    It measures for about a second after one image to warm up, and moves the module to the device.
    """
    training = module.training
    module.to(device).eval()
    _seconds(module, preprocessing, device, images=1)
    alone = _seconds(module, preprocessing, device, images=1)
    batch = max(1, min(LARGEST_BATCH, int(MEASURE_SECONDS / 2 / alone)))
    images, seconds = 1, alone
    while seconds < MEASURE_SECONDS:
        images += batch
        seconds += _seconds(module, preprocessing, device, images=batch)
    module.train(training)
    return images / seconds


def _seconds(module: nn.Module, preprocessing: Preprocessing, device: str, *, images: int) -> float:
    side, channels = preprocessing.image_size, preprocessing.channels
    canvases_BHWC = torch.zeros(images, side, side, channels, dtype=torch.uint8)
    started = time.perf_counter()
    outputs = module(preprocessing.normalise(canvases_BHWC.to(device)))
    outputs.cpu()  # waits for the device
    return time.perf_counter() - started
