"""The picture holds the canvases and exactly the views that training would see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from core.errors import ImageInvalid, Overloaded
from core.inference.previews import AT_ONCE, GAP, Asked, cell_side, draw_views, sheet_shape
from core.learning.augmentations import PRESETS, augment
from core.learning.preprocessing import Preprocessing

Pixels = NDArray[np.uint8]
ASKED = Asked(
    image_size=24, channels=3, augmentation="photo", strength=0.5, views=3, seed=7
)  # fmt: skip


def pixels(count: int) -> list[Pixels]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (30, 40, 3), dtype=np.uint8) for _ in range(count)]


def loads_of(images: list[Pixels]) -> list[Callable[[], Pixels]]:
    return [lambda image=image: image for image in images]  # type: ignore[misc]


def cells(png: bytes, images: int, asked: Asked) -> NDArray[np.uint8]:
    """The picture taken apart again: (images, 1 + views, S, S, C), one pixel of each block."""
    picture = np.asarray(Image.open(BytesIO(png)))
    picture = picture[..., None] if picture.ndim == 2 else picture
    side = cell_side(asked.image_size)
    assert picture.shape[:2] == sheet_shape(images, asked.views, asked.image_size)
    every = side // asked.image_size
    rows = []
    for row in range(images):
        top = GAP + row * (side + GAP)
        lefts = [GAP + c * (side + GAP) + (GAP if c else 0) for c in range(1 + asked.views)]
        blocks = [picture[top : top + side, left : left + side] for left in lefts]
        for block in blocks:
            assert (block == block[::every, ::every].repeat(every, 0).repeat(every, 1)).all()
        rows.append([block[::every, ::every] for block in blocks])
    return np.array(rows)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"channels": 1, "augmentation": "document", "image_size": 8},
        {"image_size": 70, "augmentation": "satellite", "strength": 2.0},
    ],
)
def test_the_picture_is_what_augment_makes(changes: dict[str, Any]) -> None:
    asked, images = replace(ASKED, **changes), pixels(2)
    shown = cells(draw_views(loads_of(images), asked), 2, asked)
    statistics = (0.0,) * asked.channels, (1.0,) * asked.channels
    preprocessing = Preprocessing(
        image_size=asked.image_size, channels=asked.channels, mean=statistics[0], std=statistics[1]
    )
    canvases = np.stack([preprocessing.canvas(image) for image in images])
    assert (shown[:, 0] == canvases).all()
    views = augment(
        torch.from_numpy(canvases),
        config=PRESETS[asked.augmentation].scaled(asked.strength),
        views=asked.views,
        generator=torch.Generator().manual_seed(asked.seed),
        compiled=False,
    )
    expected = views.permute(1, 0, 3, 4, 2).numpy() * 255
    assert np.abs(shown[:, 1:] - expected).max() <= 0.5 + 1e-4


def test_small_images_are_enlarged_and_large_ones_are_not() -> None:
    assert [cell_side(size) for size in (8, 28, 32, 48, 64, 224)] == [64, 84, 64, 96, 64, 224]


def test_an_image_that_cannot_be_read_ends_it_and_the_next_is_drawn() -> None:
    def fails() -> Pixels:
        raise ImageInvalid("truncated")

    with pytest.raises(ImageInvalid, match="truncated"):
        draw_views([fails], ASKED)
    assert draw_views(loads_of(pixels(1)), ASKED)


def test_others_are_drawn_while_one_decodes_and_too_many_are_told_so() -> None:
    drawn: list[bytes] = []

    def nested(places: int) -> Callable[[], Pixels]:
        def load() -> Pixels:
            if places:
                drawn.append(draw_views([nested(places - 1)], ASKED))
            else:
                with pytest.raises(Overloaded, match="try again"):
                    draw_views(loads_of(pixels(1)), ASKED)
            return pixels(1)[0]

        return load

    alone = draw_views(loads_of(pixels(1)), ASKED)
    assert draw_views([nested(AT_ONCE - 1)], ASKED) == alone
    assert drawn == [alone] * (AT_ONCE - 1)
