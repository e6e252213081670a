"""From one batch of canvases to its random views."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from core.learning.augmentations.blur import blur, draw_blur
from core.learning.augmentations.colour import Colours, draw_colours, recolour, solarize
from core.learning.augmentations.config import AugmentationConfig
from core.learning.augmentations.draws import chosen
from core.learning.augmentations.moves import Moves, draw_moves
from core.learning.augmentations.resampling import by_resizing, is_resized, warp
from core.learning.augmentations.threads import on_threads

# So many values go through all operations together: on the CPU as its caches hold. How they are
# divided does not depend on the number of threads.
VALUES_AT_ONCE = {"cpu": 2**19}
VALUES_ELSEWHERE = 2**26


def augment(
    images_BHWC: Tensor, *, config: AugmentationConfig, views: int, generator: torch.Generator
) -> Tensor:
    """Independent random views: crop, mirror, turn, colour, blur, solarisation, in this order.

    The order is that of SimCLR (arXiv 2002.05709, appendix A) and BYOL (2006.07733, appendix B),
    but that brightness, contrast, saturation and hue always follow each other like this.

    Args:
        images_BHWC: uint8 canvases, square, 1 or 3 channels.
        config: What to do and how strongly.
        views: Views of each image.
        generator: On the device of the images; all decisions are drawn before the first pixel
            is touched.

    Returns:
        float32 in [0, 1], (views, B, C, S, S).
    """
    batch, size, _, channels = images_BHWC.shape
    count, device = views * batch, images_BHWC.device
    with _exact(device):
        drawn = _draw(count, channels, config, generator)
        sources_N = torch.arange(batch, device=device).repeat(views)
        views_NCHW = torch.empty(count, channels, size, size, device=device)
    resized = is_resized(images_BHWC, config)

    def resize(part: slice) -> None:
        with _exact(device):
            by_resizing(images_BHWC, sources_N[part], drawn.moves[part], out=views_NCHW[part])

    def fill(part: slice) -> None:
        with _exact(device):
            filled_NCHW = views_NCHW[part]
            if resized:
                levels_NCHW = filled_NCHW.clone()
            else:
                levels_NCHW = warp(images_BHWC, sources_N[part], drawn.moves[part], config)
            recolour(levels_NCHW, drawn.colours and drawn.colours[part], out=filled_NCHW)
            blur(filled_NCHW, drawn.sigma_N[part])
            solarize(filled_NCHW, drawn.solarized_N[part], config.solarize_threshold)

    limit = VALUES_AT_ONCE.get(device.type, VALUES_ELSEWHERE)
    step = max(1, limit // (channels * size * size))
    parts = [slice(start, start + step) for start in range(0, count, step)]
    if resized:  # on one thread: calls so short that several would only wait for each other
        on_threads(resize, [slice(0, count)], device=device.type)
    on_threads(fill, parts, device=device.type)
    return views_NCHW.view(views, batch, channels, size, size)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """All that is random about N views."""

    moves: Moves
    colours: Colours | None
    sigma_N: Tensor
    solarized_N: Tensor


def _draw(
    count: int, channels: int, config: AugmentationConfig, generator: torch.Generator
) -> _Drawn:
    return _Drawn(
        moves=draw_moves(count, config, generator),
        colours=draw_colours(count, channels, config, generator),
        sigma_N=draw_blur(count, config, generator),
        solarized_N=chosen(count, config.solarize, generator),
    )


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """Without gradients and, since bfloat16 has fewer levels than the images, without autocast.

    All are settings of a thread. Inference mode would make tensors that other threads may not
    write to.
    """
    with (
        torch.inference_mode(mode=False),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        yield
