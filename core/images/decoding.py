"""Decoding of images that nobody vouches for: JPEG, PNG and WebP bytes to RGB pixels."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from core.errors import ImageInvalid, ImageTooLarge
from core.images.headers import JPEG, PNG, WEBP, orientation, read_header
from core.images.signatures import describe

# Pillow's own limit is one for the whole process and warns through the global warning filters.
# Here nothing reaches Pillow before `read_header` has compared the size with the caller's limit.
Image.MAX_IMAGE_PIXELS = None

ImageFormat = Literal["JPEG", "PNG", "WEBP"]

# What Pillow's plug-ins and decoders raise on damaged files; there is no common root. Warnings
# are in it for processes whose filters turn them into exceptions, MemoryError because a codec
# reports absurd inner sizes that way, AssertionError because plug-ins assert on what they read.
DECODER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Width and height in pixels as shown (orientation applied); `mode` is that of the file.

    `greyscale` says whether the three channels are equal in every pixel.
    """

    width: int
    height: int
    format: ImageFormat
    mode: str
    greyscale: bool


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """RGB pixels, uint8, height x width x 3, C-contiguous, and what is known about the file."""

    pixels_HWC: NDArray[np.uint8]
    info: ImageInfo


class _Jpeg(JpegImageFile):
    """A JPEG without the look into EXIF for a resolution.

    Nobody here needs it, and odd EXIF data in a sound image would raise warnings. For the same
    reason the plug-in is called directly: `Image.open` also looks for multi-picture files.
    """

    def _read_dpi_from_exif(self) -> None:
        return None


PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    JPEG: _Jpeg,
    PNG: PngImageFile,
    WEBP: WebPImageFile,
}


def decode(data: bytes, *, max_bytes: int, max_pixels: int) -> DecodedImage:
    """The whole image as RGB; of an animation the first frame.

    The EXIF orientation is applied, transparency is laid over white, 16 bits are scaled to 8,
    CMYK is converted without a colour profile. The header is checked before anything is decoded.

    Args:
        data: The encoded file.
        max_bytes: Largest length of `data`.
        max_pixels: Largest width times height.

    Raises:
        ImageTooLarge: A limit is exceeded.
        ImageInvalid: Not a JPEG, PNG or WebP image, or truncated or damaged; nothing else is
            raised, whatever the bytes.
    """
    if len(data) > max_bytes:
        raise ImageTooLarge(f"the file has {len(data):,} bytes; at most {max_bytes:,} are allowed")
    header = read_header(data)
    if header is None:
        raise ImageInvalid(f"not a JPEG, PNG or WebP image: {describe(data[:32])}")
    _check_size(header.width, header.height, max_pixels)
    try:
        with PLUGINS[header.format](BytesIO(data)) as image:
            # What Pillow is about to allocate, in case it reads the header differently than we do.
            _check_size(*image.size, max_pixels)
            image.load()
            mode, exif = image.mode, image.info.get("exif")
            rgb = _to_rgb(image, bit_depth=header.bit_depth)
        method = TRANSPOSED.get(orientation(exif))
        pixels_HWC = np.array(rgb if method is None else rgb.transpose(method))
    except DECODER_ERRORS as error:
        raise ImageInvalid(_sentence(error, header.format, len(data))) from error
    height, width, _ = pixels_HWC.shape
    info = ImageInfo(width, height, header.format, mode, _is_greyscale(pixels_HWC))
    return DecodedImage(pixels_HWC, info)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageInvalid(f"the image has {width}x{height} pixels; at least 1x1 is needed")
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"{width}x{height} = {width * height:,} pixels; at most {max_pixels:,} are allowed"
        )


def _to_rgb(image: Image.Image, *, bit_depth: int) -> Image.Image:
    if image.mode == "I;16":
        return _from_16_bits(image)
    _scale_transparency(image, bit_depth)
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(with_alpha, mask=with_alpha.getchannel("A"))
        return white
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips at 255 instead of scaling.
    wide_HW = np.asarray(image).astype(np.uint32)
    grey_HW = ((wide_HW * 255 + 32767) // 65535).astype(np.uint8)
    if (transparent := image.info.get("transparency")) is not None:
        grey_HW[wide_HW == transparent] = 255
    return Image.fromarray(grey_HW).convert("RGB")


def _scale_transparency(image: Image.Image, bit_depth: int) -> None:
    # Pillow widens samples of 2 and 4 bits and narrows those of 16 to 8, but leaves the
    # transparent colour (PNG's tRNS) as it stands in the file.
    transparent = image.info.get("transparency")
    if image.mode == "L" and bit_depth in (2, 4) and isinstance(transparent, int):
        image.info["transparency"] = min(255, transparent * 255 // (2**bit_depth - 1))
    elif image.mode == "RGB" and bit_depth == 16 and isinstance(transparent, tuple):
        image.info["transparency"] = tuple(sample >> 8 for sample in transparent)


def _is_greyscale(pixels_HWC: NDArray[np.uint8]) -> bool:
    # Colour mostly shows in the middle row: most images need no second look.
    for part_HWC in (pixels_HWC[len(pixels_HWC) // 2], pixels_HWC):
        red, green, blue = (part_HWC[..., channel] for channel in range(3))
        if not (np.array_equal(red, green) and np.array_equal(red, blue)):
            return False
    return True


def _sentence(error: Exception, image_format: str, size: int) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if "truncated" in reason.lower():
        return f"the {image_format} image is truncated after {size:,} bytes ({reason})"
    return f"the {image_format} image is damaged or uses an unsupported variant ({reason})"
