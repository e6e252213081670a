"""What is no image, not whole, or too much is refused, quickly and in plain words."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from core.errors import ImageInvalid, ImageTooLarge
from tests.unit.images.image_samples import MIB, chunk, encode, exif, gradient, ihdr, png, read


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"GIF89a" + bytes(20), "the GIF image is truncated after 26 bytes"),
        (b"II+\0\x08\0\0\0" + bytes(20), "a BigTIFF image"),
        (b"BM", "BMP image is truncated after 2 bytes"),
        (b"II*\0", "TIFF image is truncated after 4 bytes"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
        (b"PK\x03\x04", "a zip archive"),
        (b"hello", "68 65 6c 6c 6f"),
        (b"RIFF\x04\0\0\0WEBP", "truncated after 12 bytes"),
        (b"\xff\xd8\xff", "truncated after 3 bytes"),
        (b"\x89PNG\r\n\x1a\n", "truncated after 8 bytes"),
    ],
)
def test_what_is_not_an_image_is_named(data: bytes, said: str) -> None:
    with pytest.raises(ImageInvalid, match=said):
        read(data)


@pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO", "JPEG2000", "SGI"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(ImageInvalid, match="not a JPEG, PNG, WebP, BMP, TIFF or GIF image"):
        read(encode(gradient(), kind))


def test_too_many_bytes() -> None:
    with pytest.raises(ImageTooLarge, match=r"1,001 bytes; at most 1,000 are allowed"):
        read(bytes(1001), max_bytes=1000)


def huge_jpeg() -> bytes:
    data = bytearray(encode(Image.new("RGB", (8, 8)), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 50_000, 50_000)
    return bytes(data)


def huge_webp() -> bytes:
    side = (50_000 - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + side + side
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    "data",
    [png(ihdr(50_000, 50_000, 8, 2), b""), huge_jpeg(), huge_webp()],
    ids=["png", "jpeg", "webp"],
)
def test_huge_header_costs_nothing(data: bytes) -> None:
    tracemalloc.start()
    begin = time.perf_counter()
    with pytest.raises(ImageTooLarge) as caught:
        read(data, max_pixels=50_000_000)
    seconds = time.perf_counter() - begin
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    expected = "50000x50000 = 2,500,000,000 pixels; at most 50,000,000 are allowed"
    assert str(caught.value) == expected
    assert seconds < 0.5
    assert peak < MIB


def test_pixel_limit_is_inclusive() -> None:
    data = encode(Image.new("RGB", (10, 10)))
    assert read(data, max_pixels=100).info.width == 10
    with pytest.raises(ImageTooLarge):
        read(data, max_pixels=99)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_no_size_is_refused(kind: str) -> None:
    if kind == "PNG":
        data = png(ihdr(0, 5, 8, 2), b"")
    elif kind == "JPEG":
        data = huge_jpeg().replace(struct.pack(">HH", 50_000, 50_000), bytes(4))
    else:
        data = b"RIFF\x16\0\0\0WEBPVP8 \x0a\0\0\0\x10\0\0\x9d\x01\x2a" + bytes(4)
    with pytest.raises(ImageInvalid, match="at least 1x1"):
        read(data)


TRUNCATED = ["PNG", "JPEG", "progressive", "WEBP", "lossless", "animated", "BMP", "GIF", "frames"]


@pytest.mark.parametrize("kind", [*TRUNCATED, "TIFF", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_truncation_anywhere_is_refused(kind: str) -> None:
    image = gradient()
    data = {
        "PNG": lambda: encode(image),
        "JPEG": lambda: encode(image, "JPEG"),
        "progressive": lambda: encode(image, "JPEG", progressive=True, exif=exif(1)),
        "WEBP": lambda: encode(image, "WEBP"),
        "lossless": lambda: encode(image, "WEBP", lossless=True),
        "animated": lambda: encode(
            image, "WEBP", save_all=True, append_images=[Image.new("L", image.size)]
        ),
        "BMP": lambda: encode(image, "BMP"),
        "GIF": lambda: encode(image, "GIF"),
        "frames": lambda: encode(
            image, "GIF", save_all=True, append_images=[Image.new("L", image.size)]
        ),
        "TIFF": lambda: encode(image, "TIFF"),
    }.get(kind, lambda: encode(image, "TIFF", compression=kind))()
    read(data)
    for length in range(len(data)):
        with pytest.raises(ImageInvalid):
            read(data[:length])


def test_truncation_is_said() -> None:
    data = encode(gradient(), "JPEG")
    with pytest.raises(ImageInvalid, match=r"JPEG image is truncated after 400 bytes"):
        read(data[:400])


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_compressed_metadata_bomb(name: bytes) -> None:
    bomb = zlib.compress(bytes(64 * MIB))
    body = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}[name] + bomb
    data = png(ihdr(1, 1, 8, 0), b"\0\0", chunk(name, body))
    tracemalloc.start()
    with pytest.raises(ImageInvalid):
        read(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * MIB


def test_many_scans_are_refused_before_decoding() -> None:
    data = encode(gradient(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    bomb = data[:-2] + data[last:-2] * 200 + b"\xff\xd9"
    begin = time.perf_counter()
    with pytest.raises(ImageInvalid, match="100 scans"):
        read(bomb, max_bytes=256 * MIB)
    assert time.perf_counter() - begin < 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "stray"])
def test_millions_of_segments_are_refused_quickly(kind: str) -> None:
    if kind == "PNG":
        data = png(ihdr(1, 1, 8, 0), b"\0\0", chunk(b"tEXt", b"") * 2_000_000)
    else:
        filler = b"\xff\xfe\0\2" * 2_000_000 if kind == "JPEG" else b"\0" * 8_000_000
        data = b"\xff\xd8\xff\xfe\0\2" + filler + encode(gradient(), "JPEG")[2:]
    begin = time.perf_counter()
    with pytest.raises(ImageInvalid, match="more than"):
        read(data, max_bytes=64 * MIB)
    assert time.perf_counter() - begin < 1


@pytest.mark.parametrize("frames", [0, 2**31 + 1])
def test_malformed_animation_is_refused(frames: int) -> None:
    with pytest.raises(ImageInvalid, match="acTL"):
        read(png(ihdr(1, 1, 8, 0), b"\0\0", chunk(b"acTL", struct.pack(">II", frames, 0))))


def test_threads_do_not_disturb_each_other() -> None:
    files = [encode(gradient(8 + i, 8), kind) for i in range(8) for kind in ("PNG", "JPEG", "WEBP")]
    with ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(read, files * 8))
    assert [image.info.width for image in decoded] == [8 + i for i in range(8) for _ in "abc"] * 8


def test_second_frame_header_does_not_get_around_the_limit() -> None:
    data = encode(Image.new("RGB", (8, 8)), "JPEG")
    at = data.index(b"\xff\xc0")
    frame = huge_jpeg()[at : at + 19]
    with pytest.raises(ImageTooLarge, match="50000x50000"):
        read(data[: at + 19] + frame + data[at + 19 :])
