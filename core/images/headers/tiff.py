"""The header of a TIFF file: which variants are read, and whether its strips or tiles are there."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import ImageInvalid
from core.images.formats import TIFF
from core.images.headers import directory as tags
from core.images.headers.directory import Directory
from core.images.headers.header import Header, check_size, truncated
from core.images.headers.jpeg import check_scanned, jpeg_scans

NONE, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE = 1, 5, 7, 8, 32773, 32946
COMPRESSIONS = frozenset({NONE, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE})
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
DEPTHS = frozenset({1, 2, 4, 8, 16})
UNSIGNED = 1
SEPARATE_PLANES = 2
# Decoded whole, however small the image is.
MAX_TILE_PIXELS = 2**24


@dataclass(frozen=True, slots=True)
class _Parts:
    """Where the strips or tiles lie, and columns and rows of each."""

    places: tuple[int, ...]
    across: int
    down: int
    tiled: bool

    def unpacked(self, height: int, pixel_bits: int) -> list[int]:
        """Bytes of each part when it is not packed; the last strip may be lower."""
        row = (self.across * pixel_bits + 7) // 8
        if self.tiled:
            return [row * self.down] * len(self.places)
        strips = -(-height // self.down)
        return [
            row * min(self.down, height - index % strips * self.down)
            for index in range(len(self.places))
        ]


def tiff_header(data: bytes, max_pixels: int) -> Header:
    """Size and kind of the first picture; all of its strips or tiles are there."""
    directory = Directory(data)
    width, height = directory.number(tags.WIDTH), directory.number(tags.LENGTH)
    check_size(width, height, max_pixels)
    bits, samples = _check_kind(directory)
    planes = samples if directory.number(tags.PLANAR, 1) == SEPARATE_PLANES else 1
    parts = _parts(directory, width, height, planes)
    if directory.number(tags.COMPRESSION, NONE) == NONE:
        sizes = parts.unpacked(height, bits * samples // planes)
    else:
        sizes = _packed_sizes(directory, parts)
    if any(place + size > len(data) for place, size in zip(parts.places, sizes, strict=True)):
        raise truncated("TIFF", len(data), "a strip or tile lies behind its end")
    if directory.number(tags.COMPRESSION) == JPEG:
        _check_jpegs(data, parts, sizes, max_pixels)
    inverted = bits == 16 and directory.number(tags.PHOTOMETRIC) == WHITE_IS_ZERO
    if inverted:  # which Pillow does for fewer bits only
        directory.set_short(tags.PHOTOMETRIC, BLACK_IS_ZERO)
    turned = directory.number(tags.ORIENTATION, 1)
    return Header(
        format=TIFF,
        width=width,
        height=height,
        bit_depth=bits,
        orientation=turned if 1 <= turned <= 8 else 1,
        profile=directory.raw(tags.ICC_PROFILE),
        picture=directory.alone(),
        inverted=inverted,
    )


def _check_kind(directory: Directory) -> tuple[int, int]:
    """Bits of a sample and samples of a pixel, of a variant that is read."""
    compression = directory.number(tags.COMPRESSION, NONE)
    if compression not in COMPRESSIONS:
        raise ImageInvalid(
            f"the TIFF image has compression {compression}; read are none (1), LZW (5), JPEG (7), "
            "deflate (8) and PackBits (32773)"
        )
    photometric = directory.number(tags.PHOTOMETRIC)
    if photometric not in COLOURS or (photometric == YCBCR and compression != JPEG):
        raise ImageInvalid(
            f"the TIFF image has colours of kind {photometric}; read are greyscale (0, 1), RGB "
            "(2), palette (3), CMYK (5), and YCbCr (6) packed as JPEG"
        )
    depths = directory.numbers(tags.BITS) or (1,)
    formats = directory.numbers(tags.SAMPLE_FORMAT) or (UNSIGNED,)
    samples = directory.number(tags.SAMPLES, 1)
    if len(set(depths)) > 1 or depths[0] not in DEPTHS or set(formats) != {UNSIGNED}:
        raise ImageInvalid(
            f"the TIFF image has samples of {', '.join(map(str, depths))} bits in format "
            f"{formats[0]}; read are unsigned whole numbers of 1, 2, 4, 8 or 16 bits"
        )
    if not COLOURS[photometric] <= samples <= tags.MAX_SAMPLES:
        raise ImageInvalid(
            f"the TIFF image has {samples:,} samples a pixel; for its colours "
            f"{COLOURS[photometric]} to {tags.MAX_SAMPLES} are read"
        )
    return depths[0], samples


def _parts(directory: Directory, width: int, height: int, planes: int) -> _Parts:
    """The strips or tiles; refused when they are too few or many, or too large."""
    tiled = tags.TILE_OFFSETS in directory
    if tiled:
        across, down = directory.number(tags.TILE_WIDTH), directory.number(tags.TILE_LENGTH)
    else:
        across, down = width, directory.number(tags.STRIP_ROWS, height)
    if across < 1 or down < 1 or (tiled and across * down > MAX_TILE_PIXELS):
        raise ImageInvalid(
            f"the TIFF image has parts of {across:,}x{down:,} pixels; "
            f"between 1 and {MAX_TILE_PIXELS:,} pixels are read"
        )
    places = directory.numbers(tags.TILE_OFFSETS if tiled else tags.STRIP_OFFSETS)
    expected = -(-width // across) * -(-height // down) * planes
    if len(places) != expected:
        raise ImageInvalid(
            f"the TIFF image has {len(places):,} strips or tiles where its size makes "
            f"{expected:,}; at most {tags.MAX_PARTS:,} are read"
        )
    return _Parts(places, across, down, tiled)


def _packed_sizes(directory: Directory, parts: _Parts) -> list[int]:
    sizes = list(directory.numbers(tags.TILE_COUNTS if parts.tiled else tags.STRIP_COUNTS))
    if len(sizes) != len(parts.places):
        raise ImageInvalid(
            f"the TIFF image says where {len(parts.places):,} strips or tiles are and the size of "
            f"{len(sizes):,}"
        )
    # Packed parts that lie on each other unpack to many times what the file has room for.
    if sum(sizes) > len(directory.data):
        raise ImageInvalid(
            f"the TIFF image has strips or tiles of {sum(sizes):,} bytes together in a file of "
            f"{len(directory.data):,}"
        )
    return sizes


def _check_jpegs(data: bytes, parts: _Parts, sizes: list[int], max_pixels: int) -> None:
    gone_over = 0
    for place, size in zip(parts.places, sizes, strict=True):
        header, scans = jpeg_scans(data[place : place + size], max_pixels)
        gone_over += scans * header.width * header.height
    check_scanned(TIFF, gone_over)
