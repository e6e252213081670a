"""Decoding of images that nobody vouches for: bytes of a closed list of formats to RGB pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from core.errors import ImageInvalid, ImageTooCostly, ImageTooLarge
from core.images.colour import conversion
from core.images.formats import BMP, GIF, JPEG, PNG, SPOKEN, TIFF, WEBP, ImageFormat
from core.images.headers import PNG_MAGIC, Header, check_size, orientation, read_header
from core.images.pixels import flattened
from core.images.signatures import describe

# Pillow's own limit is one for the whole process and warns through the global warning filters.
# Here nothing reaches Pillow before `read_header` has compared the size with the caller's limit.
Image.MAX_IMAGE_PIXELS = None

# Part of the name of whatever is made from decoded pixels and kept: the same file gives the same
# pixels as long as this stands.
DECODER_VERSION = 2

Pixels = NDArray[np.uint8]

# Up to which a JPEG or PNG is decoded where time and memory have no other limit: some 50 ms, and
# as many megabytes.
ORDINARY_BYTES, ORDINARY_PIXELS, ORDINARY_WORK = 4 * 2**20, 2**22, 2**25

# What Pillow's plug-ins and decoders raise on damaged files; there is no common root. Warnings
# are in it for processes whose filters turn them into exceptions, AssertionError because plug-ins
# assert on what they read.
DECODER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
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

# From the picture as stored to the one that is shown, by EXIF orientation.
TURNED: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda stored_HWC: stored_HWC[:, ::-1],
    3: lambda stored_HWC: stored_HWC[::-1, ::-1],
    4: lambda stored_HWC: stored_HWC[::-1],
    5: lambda stored_HWC: stored_HWC.swapaxes(0, 1),
    6: lambda stored_HWC: stored_HWC.swapaxes(0, 1)[:, ::-1],
    7: lambda stored_HWC: stored_HWC.swapaxes(0, 1)[::-1, ::-1],
    8: lambda stored_HWC: stored_HWC.swapaxes(0, 1)[::-1],
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

    pixels_HWC: Pixels
    info: ImageInfo


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """RGB pixels as stored, before they are turned."""

    pixels_HWC: Pixels
    mode: str
    orientation: int


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
    BMP: BmpImageFile,
    TIFF: TiffImageFile,
    GIF: GifImageFile,
}


def decode(data: bytes, *, max_bytes: int, max_pixels: int) -> DecodedImage:
    """The whole image as RGB; of an animation the first frame, of a document the first page.

    The orientation is applied, an embedded colour profile converted to sRGB, transparency laid
    over white, 16 bits become 8. The header is checked before anything is decoded.

    Args:
        data: The encoded file.
        max_bytes: Largest length of `data`.
        max_pixels: Largest width times height.

    Raises:
        ImageTooLarge: A limit is exceeded.
        ImageTooCostly: Memory ran out.
        ImageInvalid: Not an image of a format that is read, or truncated or damaged; nothing else
            is raised, whatever the bytes.
    """
    check_length(data, max_bytes)
    header = read_header(data, max_pixels=max_pixels)
    if header is None:
        raise ImageInvalid(f"not a {SPOKEN} image: {describe(data[:32])}")
    try:
        stored = _fast_jpeg(data, header) or _with_pillow(data, header, max_pixels)
        pixels_HWC = _as_shown(stored)
        greyscale = _is_greyscale(pixels_HWC)
    except MemoryError as error:
        raise ImageTooCostly(
            f"the {header.format} image of {header.width}x{header.height} pixels needs more "
            "memory to be decoded than it may"
        ) from error
    except DECODER_ERRORS as error:
        raise ImageInvalid(_sentence(error, header.format, len(data))) from error
    height, width, _ = pixels_HWC.shape
    info = ImageInfo(width, height, header.format, stored.mode, greyscale)
    return DecodedImage(pixels_HWC, info)


def check_length(data: bytes, max_bytes: int) -> None:
    """Raise ImageTooLarge when a file has more bytes than it may."""
    if len(data) > max_bytes:
        raise ImageTooLarge(f"the file has {len(data):,} bytes; at most {max_bytes:,} are allowed")


def decode_ordinary(data: bytes, *, max_pixels: int) -> Pixels | None:
    """The pixels of a small JPEG or PNG, as `decode` gives them; None for everything else.

    Everything else is whatever may cost a decoder more than its pixels do (many scans, a colour
    profile, packed texts), has more than 8 bits a sample, or is not sound.
    """
    if len(data) > ORDINARY_BYTES or not data.startswith((b"\xff\xd8\xff", PNG_MAGIC)):
        return None
    most = min(max_pixels, ORDINARY_PIXELS)
    try:
        header = read_header(data, max_pixels=most)
        if header is None or header.work is None or header.work > ORDINARY_WORK:
            return None
        if header.bit_depth > 8:
            return None
        if header.format == PNG:
            stored: _Picture | None = _with_pillow(data, header, most)
        else:
            stored = _fast_jpeg(data, header)
        return None if stored is None else _as_shown(stored)
    except (ImageInvalid, MemoryError, *DECODER_ERRORS):
        return None


def _as_shown(stored: _Picture) -> Pixels:
    turn = TURNED.get(stored.orientation)
    return np.ascontiguousarray(turn(stored.pixels_HWC) if turn else stored.pixels_HWC)


def _fast_jpeg(data: bytes, header: Header) -> _Picture | None:
    """An ordinary JPEG, to the same pixels as Pillow's; None leaves it to Pillow.

    The settings are libjpeg's defaults, which are Pillow's: the accurate DCT and smooth
    upsampling. Whatever is odd about the file is an error here, and Pillow decides.
    """
    if header.format != JPEG or header.components not in (1, 3) or header.bit_depth != 8:
        return None
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != (header.width, header.height):
            return None
        pixels_HWC = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    except ValueError:
        return None
    mode = "L" if header.components == 1 else "RGB"
    if convert := conversion(header.profile, mode):
        image = Image.fromarray(pixels_HWC[..., 0] if mode == "L" else pixels_HWC)
        pixels_HWC = np.asarray(convert(image).convert("RGB"))
    return _Picture(pixels_HWC, mode, header.orientation)


def _with_pillow(data: bytes, header: Header, max_pixels: int) -> _Picture:
    with PLUGINS[header.format](BytesIO(header.picture or data)) as image:
        # What Pillow is about to allocate, in case it reads the header differently than we do.
        check_size(*image.size, max_pixels)
        image.load()
        mode, exif = image.mode, image.info.get("exif")
        rgb = flattened(image, header)
        if header.format == GIF and rgb.size != (header.width, header.height):
            whole = Image.new("RGB", (header.width, header.height), "white")
            whole.paste(rgb, header.corner)
            rgb = whole
        pixels_HWC = np.array(rgb)
    turned = orientation(exif) if header.format in (PNG, WEBP) else header.orientation
    return _Picture(pixels_HWC, mode, turned)


def _is_greyscale(pixels_HWC: Pixels) -> bool:
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
