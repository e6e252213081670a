"""From one batch of canvases to its random views."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.learning.augmentations.blur import blur, draw_blur, weights
from core.learning.augmentations.colour import LUMA, Colours, draw_colours, recolour, solarize
from core.learning.augmentations.config import AugmentationConfig
from core.learning.augmentations.draws import chosen
from core.learning.augmentations.moves import Moves, draw_moves
from core.learning.augmentations.orders import Orders
from core.learning.augmentations.resampling import warp
from core.learning.augmentations.threads import on_threads
from core.learning.preprocessing import Preprocessing

# So many values go through PyTorch's operations together: on the CPU as its caches hold.
VALUES_AT_ONCE = {"cpu": 2**19}
VALUES_ELSEWHERE = 2**26
# A thread takes about so many at a time: where a core is slower, the others do more.
COMPILED_AT_ONCE = 2**20


def augment(
    images_BHWC: Tensor,
    *,
    config: AugmentationConfig,
    views: int,
    generator: torch.Generator,
    preprocessing: Preprocessing | None = None,
    compiled: bool = True,
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
        preprocessing: Standardises the views; None leaves them in [0, 1].
        compiled: On the CPU, use the compiled kernel in place of PyTorch's operations: faster, but
            the first call takes time (`machine_code.py`). Results differ by rounding only.

    Returns:
        float32, (views, B, C, S, S).
    """
    batch, size, _, channels = images_BHWC.shape
    count, device = views * batch, images_BHWC.device
    with _exact(device):
        views_NCHW = torch.empty(count, channels, size, size, device=device)
        if count == 0:
            return views_NCHW.view(views, batch, channels, size, size)
        drawn = _draw(count, channels, config, generator)
        sources_N = torch.arange(batch, device=device).repeat(views)
        fill = _compiled if compiled and device.type == "cpu" else _by_operations
        fill(images_BHWC, sources_N, drawn, config, preprocessing, views_NCHW)
    return views_NCHW.view(views, batch, channels, size, size)


def prepare() -> None:
    """Load the kernel, or compile it where it was not kept, before the first views are wanted."""
    from core.learning.augmentations.machine_code import kernel  # noqa: PLC0415 — see there

    kernel()


def _by_operations(
    images_BHWC: Tensor,
    sources_N: Tensor,
    drawn: _Drawn,
    config: AugmentationConfig,
    preprocessing: Preprocessing | None,
    views_NCHW: Tensor,
) -> None:
    limit = VALUES_AT_ONCE.get(views_NCHW.device.type, VALUES_ELSEWHERE)
    for part in _parts(views_NCHW, -(-views_NCHW.numel() // limit)):
        filled_NCHW = views_NCHW[part]
        levels_NCHW = warp(images_BHWC, sources_N[part], drawn.moves[part], config)
        recolour(levels_NCHW, drawn.colours and drawn.colours[part], out=filled_NCHW)
        blur(filled_NCHW, drawn.sigma_N[part])
        solarize(filled_NCHW, drawn.solarized_N[part], config.solarize_threshold)
    if preprocessing is not None:
        preprocessing.standardise(views_NCHW)


def _compiled(
    images_BHWC: Tensor,
    sources_N: Tensor,
    drawn: _Drawn,
    config: AugmentationConfig,
    preprocessing: Preprocessing | None,
    views_NCHW: Tensor,
) -> None:
    from core.learning.augmentations.machine_code import kernel  # noqa: PLC0415 — see there

    moves, colours = drawn.moves, drawn.colours
    none = torch.empty(0, 0, 0)
    orders = Orders(
        sources_N=sources_N.numpy(),
        crops_N4=torch.stack(moves.crops(), dim=-1).numpy(),
        turns_N=moves.turns_N.numpy(),
        maps_N23=(moves.maps() if config.tilts else none).numpy(),
        matrix_NCC=(colours.matrix_NCC if colours else none).numpy(),
        lift_N=(colours.lift_N if colours else torch.empty(0)).numpy(),
        weights_NR=weights(drawn.sigma_N).numpy(),
        solarized_N=drawn.solarized_N.numpy(),
    )
    make_views, images, out = kernel(), images_BHWC.contiguous().numpy(), views_NCHW.numpy()
    statistics_2C = _statistics(preprocessing)
    luma, threshold = np.array(LUMA, np.float32), np.float32(config.solarize_threshold)

    def fill(part: slice) -> None:
        make_views(images, orders.part(part), luma, threshold, statistics_2C, out[part])

    threads = torch.get_num_threads()  # all are to end together
    turns = max(1, round(views_NCHW.numel() / (COMPILED_AT_ONCE * threads)))
    on_threads(fill, _parts(views_NCHW, threads * turns))


def _statistics(preprocessing: Preprocessing | None) -> NDArray[np.float32]:
    if preprocessing is None:
        return np.empty((0, 0), np.float32)
    return np.array([preprocessing.mean, preprocessing.std], np.float32)


def _parts(views_NCHW: Tensor, parts: int) -> list[slice]:
    """So many parts of equal size, or as many as there are views."""
    count = len(views_NCHW)
    step = -(-count // parts)
    return [slice(start, start + step) for start in range(0, count, step)]


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

    Views that were made in inference mode could not be saved for a gradient.
    """
    with (
        torch.inference_mode(mode=False),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        yield
