"""A picture of what augmentation does to images: the views that training would see."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from threading import BoundedSemaphore, Lock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from core.errors import Overloaded
from core.learning.augmentations import PRESETS, augment
from core.learning.preprocessing import Preprocessing

Pixels = NDArray[np.uint8]
LEAST_CELL = 64  # pixels on the screen: smaller images are enlarged
GAP = 4
PAPER = 255
# Calls that decode at the same time: each one keeps a thread of the server and a core for seconds.
AT_ONCE = 2
_PLACES = BoundedSemaphore(AT_ONCE)
# One at a time: drawing takes all cores for a moment, and predictions need them too.
_DRAWING = Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What to draw.

    Attributes:
        image_size: Side of the network's input in pixels.
        channels: Of its input, 1 or 3.
        augmentation: Name of a preset.
        strength: Of the preset, 0 to 2.
        views: Views of each image.
        seed: Of the generator: the same one gives the same picture.
    """

    image_size: int
    channels: int
    augmentation: str
    strength: float
    views: int
    seed: int


def draw_views(
    loads: Iterable[Callable[[], Pixels]],
    asked: Asked,
) -> bytes:
    """A row for each image: the canvas as training gets it, then its views, enlarged unsmoothed.

    Args:
        loads: Each decodes one image, (H, W, 3) RGB uint8; called one after the other.
        asked: Which views.

    Returns:
        PNG, grey or RGB.

    Raises:
        Overloaded: As many other pictures are being made as may be at once.
    """
    # Without waiting: who waits keeps a thread of the server as well.
    if not _PLACES.acquire(blocking=False):
        raise Overloaded("other pictures of augmentations are being made; try again in a moment")
    try:
        canvases_BHWC = np.stack([_canvas(load(), asked) for load in loads])
        with _DRAWING:
            return _draw(canvases_BHWC, asked)
    finally:
        _PLACES.release()


def _draw(canvases_BHWC: Pixels, asked: Asked) -> bytes:
    views_VBCHW = augment(
        torch.from_numpy(canvases_BHWC),
        config=PRESETS[asked.augmentation].scaled(asked.strength),
        views=asked.views,
        generator=torch.Generator().manual_seed(asked.seed),
        compiled=False,  # a compiler is nothing for an API process to load
    )
    bytes_VBHWC = (views_VBCHW * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()
    return _png(_sheet(np.concatenate([canvases_BHWC[None], bytes_VBHWC])))


def _canvas(pixels_HWC: Pixels, asked: Asked) -> Pixels:
    # Statistics are for what comes after the augmentation.
    neutral = (0.5,) * asked.channels
    preprocessing = Preprocessing(
        image_size=asked.image_size, channels=asked.channels, mean=neutral, std=neutral
    )
    return preprocessing.canvas(pixels_HWC)


def cell_side(image_size: int) -> int:
    """Pixels along an image in the picture: a multiple of its own."""
    return image_size * -(-LEAST_CELL // image_size)


def sheet_shape(images: int, views: int, image_size: int) -> tuple[int, int]:
    """Height and width of the picture in pixels."""
    step = cell_side(image_size) + GAP
    return images * step + GAP, (1 + views) * step + 2 * GAP


def _sheet(columns_VBHWC: Pixels) -> Pixels:
    """All on white; a wider gap sets the first column apart."""
    columns, rows, size, _, channels = columns_VBHWC.shape
    side = cell_side(size)
    sheet_HWC = np.full((*sheet_shape(rows, columns - 1, size), channels), PAPER, dtype=np.uint8)
    enlarged = columns_VBHWC.repeat(side // size, axis=2).repeat(side // size, axis=3)
    for column in range(columns):
        left = GAP + column * (side + GAP) + (GAP if column else 0)
        for row in range(rows):
            top = GAP + row * (side + GAP)
            sheet_HWC[top : top + side, left : left + side] = enlarged[column, row]
    return sheet_HWC


def _png(sheet_HWC: Pixels) -> bytes:
    picture = Image.fromarray(sheet_HWC[..., 0] if sheet_HWC.shape[2] == 1 else sheet_HWC)
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
