"""What a file says of itself, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import ImageInvalid, ImageTooLarge
from core.images.formats import ImageFormat

# Each segment or chunk costs a decoder time and memory of its own; a file of 32 MB has room for
# eight million. Sound files have some tens, motion photos and screenshots with history hundreds.
MAX_SEGMENTS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """Size in pixels as stored (before orientation), and what the pixels mean.

    Attributes:
        format: The format.
        width: Columns of the whole picture.
        height: Rows of the whole picture.
        bit_depth: Bits of one sample.
        components: Colour components of a JPEG; 0 for other formats.
        orientation: As EXIF has it, 1 to 8.
        profile: An ICC profile as it lies in a JPEG or TIFF.
        picture: What a decoder is given instead of the file: a TIFF or GIF with nothing but its
            first picture.
        corner: Column and row where the decoded picture lies in the whole one.
        inverted: Whether 0 is white in 16-bit greyscale.
        work: Pixels that a decoder goes over, once for each scan; None where the file has parts
            beside its pixels that cost time or memory, too, or the format is not judged.
    """

    format: ImageFormat
    width: int
    height: int
    bit_depth: int = 8
    components: int = 0
    orientation: int = 1
    profile: bytes | None = None
    picture: bytes | None = None
    corner: tuple[int, int] = (0, 0)
    inverted: bool = False
    work: int | None = None


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse a size; to be called before anything is made of it.

    Raises:
        ImageInvalid: There is not one pixel.
        ImageTooLarge: There are more than `max_pixels`.
    """
    if width < 1 or height < 1:
        raise ImageInvalid(f"the image has {width}x{height} pixels; at least 1x1 is needed")
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"{width}x{height} = {width * height:,} pixels; at most {max_pixels:,} are allowed"
        )


def truncated(name: str, size: int, what: str) -> ImageInvalid:
    """The refusal of a file that ends too early; `what` says what is missing."""
    return ImageInvalid(f"the {name} image is truncated after {size:,} bytes: {what}")
