"""Pixels of any kind that files have become RGB: palettes, transparency, 16 bits, CMYK."""

from __future__ import annotations

import numpy as np
from PIL import Image

from core.images.colour import conversion
from core.images.headers import Header

# Kinds of pixels (Pillow's modes) by whether transparency may lie in them.
WIDE = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
PLAIN = frozenset({"1", "L", "P", "RGB", "CMYK"})
WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
GREY = frozenset({"1", "L", "LA"})
# Rows that are widened at a time.
BAND = 64


def flattened(image: Image.Image, header: Header) -> Image.Image:
    """A loaded image as RGB in sRGB, transparency laid over white.

    Raises:
        ValueError: Its pixels are of a kind that is not read.
    """
    profile = header.profile or image.info.get("icc_profile")
    flat, alpha = _parts(image, header)
    if convert := conversion(profile, flat.mode):
        flat = convert(flat)
    rgb = _in_mode(flat, "RGB")
    if alpha is None:
        return rgb
    white = Image.new("RGB", image.size, "white")
    white.paste(rgb, mask=alpha)
    return white


def _parts(image: Image.Image, header: Header) -> tuple[Image.Image, Image.Image | None]:
    """Opaque pixels of mode L, RGB or CMYK, and how opaque each is meant to be."""
    if image.mode in WIDE:
        return _from_16_bits(image, inverted=header.inverted)
    if image.mode not in PLAIN | WITH_ALPHA:
        raise ValueError(f"pixels of the kind {image.mode} are not read")
    _scale_transparency(image, header.bit_depth)
    if image.mode in ("La", "RGBa"):  # multiplied by their alpha
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    grey = image.mode in GREY
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        colour = with_alpha.getchannel("R") if grey else with_alpha.convert("RGB")
        return colour, with_alpha.getchannel("A")
    if image.mode == "CMYK":
        return image, None
    return _in_mode(image, "L" if grey else "RGB"), None


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    # Pillow copies where there is nothing to convert.
    return image if image.mode == mode else image.convert(mode)


def _from_16_bits(image: Image.Image, *, inverted: bool) -> tuple[Image.Image, Image.Image | None]:
    # Pillow's own conversion clips at 255 instead of scaling.
    wide_HW = np.asarray(image)
    grey_HW = np.empty(wide_HW.shape, np.uint8)
    for row in range(0, len(wide_HW), BAND):
        levels_HW = wide_HW[row : row + BAND].astype(np.uint32)
        grey_HW[row : row + BAND] = (levels_HW * 255 + 32767) // 65535
    if inverted:
        grey_HW = 255 - grey_HW
    alpha = None
    if (transparent := image.info.get("transparency")) is not None:
        alpha = Image.fromarray(np.where(wide_HW == transparent, np.uint8(0), np.uint8(255)))
    return Image.fromarray(grey_HW), alpha


def _scale_transparency(image: Image.Image, bit_depth: int) -> None:
    # Pillow widens samples of 2 and 4 bits and narrows those of 16 to 8, but leaves the
    # transparent colour (PNG's tRNS) as it stands in the file.
    transparent = image.info.get("transparency")
    if image.mode == "L" and bit_depth in (2, 4) and isinstance(transparent, int):
        image.info["transparency"] = min(255, transparent * 255 // (2**bit_depth - 1))
    elif image.mode == "RGB" and bit_depth == 16 and isinstance(transparent, tuple):
        image.info["transparency"] = tuple(sample >> 8 for sample in transparent)
