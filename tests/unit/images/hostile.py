"""Hostile files and archives, each with the code of its refusal."""

from __future__ import annotations

import gzip
import io
import random
import stat
import struct
import tarfile
import zipfile
import zlib

import numpy as np
from PIL import Image

from tests.unit.images.archive_samples import tar_of, zip_of
from tests.unit.images.image_samples import chunk, encode, exif, gradient, ihdr, png
from tests.unit.images.raw_samples import (
    bmp,
    changed,
    gif,
    gif_codes,
    gif_frame,
    long,
    picture,
    short,
    tiff,
)

INVALID, LARGE = "ImageInvalid", "ImageTooLarge"
BOMB, UNSAFE, NO_FILE = "decompression_bomb", "unsafe_name", "not_a_file"
GOOD = encode(gradient(9, 7))
NOISE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (13, 11, 3), dtype=np.uint8))
WHOLE = {
    "jpeg": encode(NOISE, "JPEG"),
    "jpeg-progressive": encode(NOISE, "JPEG", progressive=True, exif=exif(6)),
    "png": encode(NOISE),
    "webp": encode(NOISE, "WEBP"),
    "webp-lossless": encode(NOISE, "WEBP", lossless=True),
    "bmp": encode(NOISE, "BMP"),
    "tiff": encode(NOISE, "TIFF"),
    "tiff-lzw": encode(NOISE, "TIFF", compression="tiff_lzw"),
    "gif": encode(NOISE.quantize(16), "GIF"),
    "gif-animated": encode(NOISE, "GIF", save_all=True, append_images=[NOISE.rotate(180)]),
}
OTHERS = {
    "pdf": b"%PDF-1.7\n1 0 obj",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "html": b"<!DOCTYPE html><script>alert(1)</script>",
    "xml": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>',
    "elf": b"\x7fELF" + bytes(60),
    "script": b"#!/bin/sh\nrm -rf /\n",
    "heic": b"\0\0\0\x18ftypheic" + bytes(40),
    "ico": encode(gradient(), "ICO"),
    "jpeg 2000": encode(gradient(), "JPEG2000"),
    "ppm": encode(gradient(), "PPM"),
    "zip": zip_of({"a.png": GOOD}),
    "gzip": gzip.compress(GOOD),
    "bigtiff": b"II+\0\x08\0\0\0" + bytes(40),
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "text": "kein Bild".encode("utf-16"),
    "noise": random.Random(5).randbytes(3000),
    "zeros": bytes(3000),
    "empty": b"",
}


def truncated() -> dict[str, bytes]:
    """Every whole image, cut at every tenth byte."""
    return {
        f"{name} cut at {length}": data[:length]
        for name, data in WHOLE.items()
        for length in range(0, len(data), 10)
    }


def too_large() -> dict[str, bytes]:
    """Small files that announce, or are, pictures of billions of pixels."""
    side = (60_000 - 1).to_bytes(3, "little")
    canvas = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + side + side
    wide = struct.pack(">HH", 60_000, 60_000)
    jpeg = bytearray(encode(Image.new("RGB", (8, 8)), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = wide
    rows = zlib.compressobj()
    row = bytes(1 + 30_000 // 8)
    packed = b"".join(rows.compress(row) for _ in range(30_000)) + rows.flush()
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr(30_000, 30_000, 1, 0))
    huge = [long(256, 60_000), long(257, 60_000)]
    frame = gif_frame(0, 0, 60_000, 60_000, gif_codes([1]))
    return {
        "png header": png(ihdr(60_000, 60_000, 8, 2), b""),
        "png of 900 megapixels": bomb + chunk(b"IDAT", packed) + chunk(b"IEND", b""),
        "webp canvas": b"RIFF" + struct.pack("<I", len(canvas)) + canvas,
        "jpeg frame": bytes(jpeg),
        "tiff lzw": tiff(changed(picture(4, 4), *huge, short(259, 5)), bytes(16)),
        "tiff plain": tiff(changed(picture(4, 4), *huge), bytes(16)),
        "tiff jpeg": tiff(changed(picture(4, 4), *huge, short(259, 7)), WHOLE["jpeg"]),
        "bmp rows": bmp(60_000, 60_000, bytes(64)),
        "bmp from above": bmp(60_000, -60_000, bytes(64)),
        "bmp runs": bmp(60_000, 60_000, b"\xff\1" * 20 + b"\0\1", bits=8, compression=1),
        "bmp of lowest height": bmp(9, -(2**31 - 1), bytes(300)),
        "gif screen": gif(60_000, 60_000, gif_frame(0, 0, 1, 1, gif_codes([1]))),
        "gif picture": gif(1, 1, frame),
        "gif corner": gif(1, 1, gif_frame(65_535, 65_535, 1, 1, gif_codes([1]))),
        "too many bytes": GOOD + bytes(33 * 2**20),
    }


def lying() -> dict[str, bytes]:
    """Headers that are absurd, parts that are not what is said of them, work without end."""
    progressive = encode(gradient(), "JPEG", progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    jpeg = WHOLE["jpeg"]
    body = jpeg[2:]
    wide = bytearray(progressive)
    at = wide.index(b"\xff\xc2") + 5
    wide[at : at + 4] = struct.pack(">HH", 7000, 7000)
    scanned = bytes(wide[:-2]) + scan * 60 + b"\xff\xd9"
    exif_segment = b"\xff\xe1" + struct.pack(">H", 2 + 60_000) + exif(1).ljust(60_000, b"\0")
    one_row = zlib.compress(bytes(7000))
    strips = [short(259, 8), long(278, 1), long(273, *[8] * 7000)]
    sizes = [long(279, *[len(one_row)] * 7000)]
    frame = gif_frame(0, 0, 2, 1, gif_codes([1, 1]))
    metadata = zlib.compress(bytes(64 * 2**20))
    sound = picture(4, 4)
    return {
        "png with wrong checksum": GOOD[:40] + bytes([GOOD[40] ^ 1]) + GOOD[41:],
        "png without rows": png(ihdr(9, 9, 8, 2), b""),
        "png with other data": png(ihdr(9, 9, 8, 2), b"\7" * 500),
        "png of colour type 5": png(ihdr(9, 9, 8, 5), bytes(90)),
        "png without palette": png(ihdr(9, 9, 8, 3), bytes(90)),
        "png of no width": png(ihdr(0, 9, 8, 2), b""),
        "png with a million chunks": png(ihdr(1, 1, 8, 0), b"\0\0", chunk(b"tEXt", b"") * 10**6),
        "png text bomb": png(ihdr(1, 1, 8, 0), b"\0\0", chunk(b"zTXt", b"k\0\0" + metadata)),
        "png profile bomb": png(ihdr(1, 1, 8, 0), b"\0\0", chunk(b"iCCP", b"k\0\0" + metadata)),
        "png chunk of 4 GB": GOOD[:33] + b"\xff\xff\xff\xffIDAT" + GOOD[41:],
        "jpeg of 200 scans": progressive[:-2] + scan * 200 + b"\xff\xd9",
        "jpeg scans of 49 megapixels": scanned,
        "jpeg of a million segments": b"\xff\xd8\xff\xfe\0\2" + b"\xff\xfe\0\2" * 10**6 + body,
        "jpeg of fill bytes": b"\xff\xd8" + b"\xff" * 4 * 10**6,
        "jpeg of fill bytes in its scan": jpeg[:-2] + b"\xff" * 4 * 10**6,
        "jpeg with junk": b"\xff\xd8\xff\xfe\0\2" + bytes(8 * 10**6) + body,
        "jpeg of deep exif": b"\xff\xd8" + exif_segment * 100 + body,
        "jpeg without tables": b"\xff\xd8" + jpeg[jpeg.index(b"\xff\xc0") :],
        "jpeg of 12 bits": jpeg.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
        "webp of unknown chunks": b"RIFF\x30\0\0\0WEBPVP9 " + bytes(40),
        "webp that ends early": WHOLE["webp"][:4] + b"\xff\xff\0\0" + WHOLE["webp"][8:],
        "bmp header of 4 GB": b"BM" + b"\xff" * 60,
        "bmp of negative width": bmp(-9, 9, bytes(300)),
        "bmp of no height": bmp(9, 0, bytes(300)),
        "bmp rows behind the end": bmp(90, 90, bytes(300)),
        "bmp of 7 bits": bmp(9, 9, bytes(300), bits=7),
        "bmp with a jpeg in it": bmp(9, 9, jpeg, compression=4),
        "bmp of endless runs": bmp(2000, 2000, b"\1\1" * 2**20, bits=8, compression=1),
        "bmp runs that stop": bmp(200, 200, b"\xff\1\0\1", bits=8, compression=1),
        "tiff of 65,535 tags": tiff([short(40_000 + n, 1) for n in range(20_000)]),
        "tiff directory behind the end": b"II*\0\xff\xff\xff\x7f" + bytes(40),
        "tiff directory in its header": b"II*\0\4\0\0\0" + bytes(40),
        "tiff of 60,000 samples": tiff(changed(sound, short(277, 60_000)), bytes(16)),
        "tiff of 4 billion strips": tiff(changed(sound, (273, 4, 2**32 - 1, bytes(8))), bytes(16)),
        "tiff strip behind the end": tiff(changed(sound, long(273, 2**32 - 1)), bytes(16)),
        "tiff strips on each other": tiff(changed(picture(7000, 7000), *strips, *sizes), one_row),
        "tiff tile of 4 gigapixels": tiff(
            changed(sound, long(322, 65_536), long(323, 65_536), long(324, 8)), bytes(16)
        ),
        "tiff of no rows a strip": tiff(changed(sound, long(278, 0)), bytes(16)),
        "tiff of floats": tiff(changed(sound, short(339, 3)), bytes(16)),
        "tiff of old jpeg": tiff(changed(sound, short(259, 6)), WHOLE["jpeg"]),
        "tiff of unknown packing": tiff(changed(sound, short(259, 34_925)), bytes(16)),
        "tiff with damaged deflate": tiff(
            changed(sound, short(259, 8)), b"\x78\x9c" + b"\xff" * 14
        ),
        "tiff with scans of 49 megapixels": tiff(
            changed(
                picture(7000, 7000, bits=[8] * 3, kind=6), short(259, 7), long(279, len(scanned))
            ),
            scanned,
        ),
        "tiff with another jpeg": tiff(
            changed(picture(4000, 4000), short(259, 7), long(279, len(jpeg))), jpeg
        ),
        "gif without picture": gif(9, 9),
        "gif of unknown blocks": gif(9, 9, b"x" * 100),
        "gif of a million sub-blocks": gif(2, 1, b"!\xfe" + b"\1x" * 1_000_001 + b"\0", frame),
        "gif of 20,000 frames": gif(2, 1, frame * 20_000),
        "gif of no width": gif(0, 0, gif_frame(0, 0, 0, 0, gif_codes([1]))),
        "gif of few codes": gif(90, 90, gif_frame(0, 0, 90, 90, gif_codes([1]))),
        "gif of code size 13": gif(2, 1, gif_frame(0, 0, 2, 1, b"\x0d" + gif_codes([1])[1:])),
        "gif of wild codes": gif(90, 90, gif_frame(0, 0, 90, 90, b"\2" + b"\xff" * 200)),
    }


def files() -> dict[str, tuple[bytes, str]]:
    """Files by name, with the code of the refusal."""
    invalid = {**truncated(), **lying(), **OTHERS}
    return {
        **{name: (data, INVALID) for name, data in invalid.items()},
        **{name: (data, LARGE) for name, data in too_large().items()},
    }


def named_tar(*names: str) -> bytes:
    return tar_of({**dict.fromkeys(names, GOOD), "good.png": GOOD})


def links() -> bytes:
    buffer = io.BytesIO()
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for kind in kinds:
            link = tarfile.TarInfo(f"link{kind.decode()}.png")
            link.type, link.linkname = kind, "/etc/passwd"
            archive.addfile(link)
        good = tarfile.TarInfo("good.png")
        good.size = len(GOOD)
        archive.addfile(good, io.BytesIO(GOOD))
    return buffer.getvalue()


def linked_zip() -> bytes:
    link = zipfile.ZipInfo("link.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("good.png", GOOD)
    return buffer.getvalue()


def lying_zip() -> bytes:
    """Its directory says of a bomb that it unpacks to one byte."""
    data = bytearray(zip_of({"bomb.png": bytes(20 * 2**20), "good.png": GOOD}))
    for at in (22, data.index(b"PK\x01\x02") + 24):
        data[at : at + 4] = struct.pack("<I", 1)
    return bytes(data)


def overlapping_zip(count: int) -> bytes:
    """Many directory records that point to one entry, and one sound entry before it."""
    single = zip_of({"good.png": GOOD, "k.png": random.Random(3).randbytes(2**20)})
    directory = single.index(b"PK\x01\x02")
    last = single.index(b"PK\x01\x02", directory + 4)
    end = single.index(b"PK\x05\x06")
    records = single[directory:last] + single[last:end] * count
    tail = struct.pack("<4H2IH", 0, 0, count + 1, count + 1, len(records), directory, 0)
    return single[:directory] + records + b"PK\x05\x06" + tail


def archives() -> dict[str, tuple[bytes, set[str]]]:
    """Archives with a sound image in them, by name, with the codes of what is refused."""
    return {
        "zip in zip": (zip_of({"in.zip": zip_of({"a.png": GOOD}), "good.png": GOOD}), {INVALID}),
        "bomb in zip": (zip_of({"b.png": bytes(5_000_000), "good.png": GOOD}), {BOMB}),
        "sizes that lie": (lying_zip(), {"corrupt_entry"}),
        "links in tar": (links(), {NO_FILE}),
        "link in zip": (linked_zip(), {NO_FILE}),
        "names that climb": (named_tar("../a.png", "b/../../a.png", "..\\a.png"), {UNSAFE}),
        "absolute names": (named_tar("/etc/a.png", "C:\\a.png", "\\\\host\\a"), {UNSAFE}),
        "names with NUL": (tar_of({"a\0b.png": b"text", "good.png": GOOD}), {INVALID}),
        "overlapping entries": (overlapping_zip(5), {INVALID}),
        "a name of half a million marks": (
            tar_of({"a" + "\u0301\u0327" * 250_000: b"text", "good.png": GOOD}),
            {INVALID},
        ),
    }


def unreadable_archives() -> dict[str, tuple[bytes, str]]:
    """Archives that are refused as a whole, by name, with the code."""
    return {
        "no archive": (random.Random(6).randbytes(5000), "ArchiveInvalid"),
        "empty": (b"", "ArchiveInvalid"),
        "tar cut": (named_tar("a.png")[:1700], "ArchiveInvalid"),
        "zip cut": (zip_of({"a.png": GOOD})[:-30], "ArchiveInvalid"),
        "gzip bomb": (gzip.compress(tar_of({"b.png": bytes(80 * 2**20)})), "ArchiveTooLarge"),
        "entries that overlap and add up": (overlapping_zip(80), "ArchiveTooLarge"),
    }
