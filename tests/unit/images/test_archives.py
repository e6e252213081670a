"""What comes out of an archive, what is left out, what is rejected by itself."""

from __future__ import annotations

import gzip
import io
import random
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import ArchiveInvalid
from tests.unit.images.archive_samples import (
    PACKINGS,
    PHOTOS,
    Entries,
    contents,
    read,
    start,
    tar_of,
    until_error,
    zip_of,
)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars(tmp_path: Path, packing: str, style: int) -> None:
    data = PACKINGS[packing](tar_of(PHOTOS, style))
    assert contents(read(tmp_path, data)) == PHOTOS


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zips(tmp_path: Path, method: int) -> None:
    assert contents(read(tmp_path, zip_of(PHOTOS, method))) == PHOTOS


def test_zip_written_as_a_stream_and_with_a_comment(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = b"PK\x01\x02 holiday"
        with archive.open("a.jpg", "w", force_zip64=True) as entry:
            entry.write(b"first")
    assert contents(read(tmp_path, buffer.getvalue())) == {"a.jpg": b"first"}


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz"])
def test_concatenated_compressed_streams(tmp_path: Path, packing: str) -> None:
    whole = tar_of(PHOTOS)
    data = PACKINGS[packing](whole[:700]) + PACKINGS[packing](whole[700:])
    assert contents(read(tmp_path, data)) == PHOTOS


@pytest.mark.parametrize(
    "data", [zip_of({}), tar_of({}), gzip.compress(tar_of({}))], ids=["zip", "tar", "tar.gz"]
)
def test_empty_archives(tmp_path: Path, data: bytes) -> None:
    assert read(tmp_path, data) == []


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_in_tars(tmp_path: Path, style: int) -> None:
    entries = {f"{'ä' * 90}/{'日本' * 60}.jpg": b"x", "short.jpg": b"y"}
    assert contents(read(tmp_path, tar_of(entries, style))) == entries


def test_names_are_cleaned_for_display(tmp_path: Path) -> None:
    raw = "./Fu\u0308r\x1b[31m\u202egpj.exe\n.png"
    for data in (zip_of({raw: b"x"}), tar_of({raw: b"x"})):
        (member,) = read(tmp_path, data)
        assert member.name == "Für[31mgpj.exe.png"
        assert unicodedata.is_normalized("NFC", member.name)


def test_names_in_utf8_without_the_flag(tmp_path: Path) -> None:
    data = zip_of({"Fuechse-xx.jpg": b"x"}).replace(b"xx", "ü".encode())
    assert contents(read(tmp_path, data)) == {"Fuechse-ü.jpg": b"x"}


JUNK = (
    ".DS_Store",
    "a/.hidden.jpg",
    ".git/x.png",
    "__MACOSX/._a.jpg",
    "__MACOSX/a.jpg",
    "Thumbs.db",
    "a/thumbs.db",
    "folder/",
)


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_junk_is_left_out(tmp_path: Path, make: Callable[[Entries], bytes]) -> None:
    data = make({**dict.fromkeys(JUNK, b""), "./a.jpg": b"x"})
    assert contents(read(tmp_path, data)) == {"a.jpg": b"x"}


def test_zip_entries_without_a_name_are_files(tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in (("", b"x"), ("good.jpg", b"y")):
            archive.writestr(zipfile.ZipInfo(name), data)
    assert contents(read(tmp_path, made.getvalue())) == {"(no name)": b"x", "good.jpg": b"y"}


@pytest.mark.parametrize("make", [zip_of, tar_of])
@pytest.mark.parametrize(
    "name", ["../a.jpg", "a/../../b.jpg", "/etc/a.jpg", "C:\\a.jpg", "\\\\host\\a.jpg", "a\\..\\b"]
)
def test_unsafe_names_are_rejected(
    tmp_path: Path, make: Callable[[Entries], bytes], name: str
) -> None:
    found = read(tmp_path, make({name: b"x", "good.jpg": b"y"}))
    assert contents(found) == {name: "unsafe_name", "good.jpg": b"y"}
    assert found[0].data is None


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_links_and_devices_in_tars_are_rejected(tmp_path: Path, kind: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link)
        real = tarfile.TarInfo("real.jpg")
        real.size = 1
        archive.addfile(real, io.BytesIO(b"x"))
    found = contents(read(tmp_path, buffer.getvalue()))
    assert found == {"link.jpg": "not_a_file", "real.jpg": b"x"}


def test_symlinks_in_zips_are_rejected(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.jpg")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("real.jpg", b"x")
    found = contents(read(tmp_path, buffer.getvalue()))
    assert found == {"link.jpg": "not_a_file", "real.jpg": b"x"}


def test_encrypted_entries_are_rejected(tmp_path: Path) -> None:
    data = bytearray(zip_of({"secret.jpg": b"x", "open.jpg": b"y"}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    found = read(tmp_path, bytes(data))
    assert contents(found) == {"secret.jpg": "encrypted", "open.jpg": b"y"}
    assert "without a password" in str(found[0].rejected)


def test_bad_checksum_spoils_one_entry_only(tmp_path: Path) -> None:
    data = zip_of({"a.jpg": b"first", "b.jpg": b"broken", "c.jpg": b"third"}, zipfile.ZIP_STORED)
    found = contents(read(tmp_path, data.replace(b"broken", b"brokxn")))
    assert found == {"a.jpg": b"first", "b.jpg": "corrupt_entry", "c.jpg": b"third"}


@pytest.mark.parametrize("packing", PACKINGS)
def test_truncated_tar_gives_what_came_before(tmp_path: Path, packing: str) -> None:
    noise = random.Random(1)
    entries = {f"{index}.jpg": noise.randbytes(200_000) for index in range(6)}
    data = PACKINGS[packing](tar_of(entries))
    found = until_error(start(tmp_path, data[: len(data) // 2]), ArchiveInvalid, "cut off")
    # bzip2 works in blocks of 900 kB.
    assert len(found) >= (0 if packing == "bz2" else 2)
    assert all(member.data == entries[member.name] for member in found)


def test_tar_cut_between_entries_is_truncated(tmp_path: Path) -> None:
    data = tar_of({"a.jpg": b"x", "b.jpg": b"y"}, tarfile.USTAR_FORMAT)
    for length in range(512, 2048, 256):
        found = until_error(start(tmp_path, data[:length]), ArchiveInvalid, "end mark is missing")
        # Headers at 0 and 1024, one byte of content 512 after each.
        assert len(found) == (length - 512 + 1023) // 1024


def test_damaged_tar_header(tmp_path: Path) -> None:
    data = bytearray(tar_of({"a.jpg": b"x", "b.jpg": b"y"}, tarfile.USTAR_FORMAT))
    data[1024 + 3] ^= 0xFF
    found = until_error(start(tmp_path, bytes(data)), ArchiveInvalid, "damaged after 1 entries")
    assert contents(found) == {"a.jpg": b"x"}


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz"])
def test_checksum_of_the_compressed_stream_is_read(tmp_path: Path, packing: str) -> None:
    data = bytearray(PACKINGS[packing](tar_of(PHOTOS)))
    at = {"gz": -6, "bz2": -4, "xz": -3}[packing]
    data[at] ^= 0xFF
    until_error(start(tmp_path, bytes(data)), ArchiveInvalid, "cut off or damaged")


def test_truncated_zip(tmp_path: Path) -> None:
    data = zip_of(PHOTOS)
    for length in range(30, len(data), 17):
        with pytest.raises(ArchiveInvalid, match="list of entries, at the end of the file"):
            read(tmp_path, data[:length])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"\xff\xd8\xff\xe0" + bytes(600), "a JPEG image"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(600), "a 7z archive"),
        (b"Rar!\x1a\x07" + bytes(600), "a RAR archive"),
        (b"hello, world", "68 65 6c 6c 6f"),
        (b"x" * 2000, "78 78 78"),
    ],
)
def test_no_archive(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(ArchiveInvalid, match="neither a zip nor a tar archive.*" + said):
        read(tmp_path, data)


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz"])
def test_compressed_but_no_tar(tmp_path: Path, packing: str) -> None:
    data = PACKINGS[packing](b"\x89PNG" + bytes(range(256)) * 10)
    with pytest.raises(ArchiveInvalid, match="what is inside is not a tar archive"):
        read(tmp_path, data)
