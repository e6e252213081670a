"""What a file is by its first bytes, in words for error messages."""

from __future__ import annotations

PREFIXES = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"II+\x00", "a BigTIFF image"),
    (b"MM\x00+", "a BigTIFF image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"BZh", "bzip2-compressed data"),
    (b"\xfd7zXZ\x00", "xz-compressed data"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document"),
    (b"<!DOCTYPE", "an HTML document"),
    (b"<html", "an HTML document"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"{", "JSON text"),
)


def describe(head: bytes) -> str:
    """Half a sentence on a file's first bytes (32 are enough): "the first bytes are those of …"."""
    if not head:
        return "it is empty (0 bytes)"
    name = next((name for prefix, name in PREFIXES if head.startswith(prefix)), None)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        name = "a WebP image"
    if head[4:8] == b"ftyp":
        name = "an AVIF or HEIC image, or an MP4 video"
    if name:
        return f"the first bytes are those of {name}"
    return f"it starts with the bytes {head[:8].hex(' ')}"
