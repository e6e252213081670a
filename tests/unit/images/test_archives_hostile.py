"""Archives made to cost memory, time or disk: every limit holds on what is really read."""

from __future__ import annotations

import gzip
import io
import lzma
import random
import struct
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import ArchiveInvalid, ArchiveTooLarge
from core.images.archives import ArchiveLimits, members
from tests.unit.images.archive_samples import (
    MIB,
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


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_zip_methods_are_rejected(tmp_path: Path, method: int) -> None:
    # One read of a bzip2 entry may give gigabytes: zipfile has no bound there.
    data = zip_of({"a.jpg": bytes(32 * MIB)}, method)
    tracemalloc.start()
    found = read(tmp_path, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert contents(found) == {"a.jpg": "unsupported_entry"}
    assert peak < MIB


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_entry_too_large(tmp_path: Path, make: Callable[[Entries], bytes]) -> None:
    noise = random.Random(2).randbytes(20_000)
    limits = ArchiveLimits(
        max_entries=9, max_bytes=10 * MIB, max_ratio=200.0, max_file_bytes=19_999
    )
    found = contents(read(tmp_path, make({"big.jpg": noise, "ok.jpg": noise[:19_999]}), limits))
    assert found == {"big.jpg": "entry_too_large", "ok.jpg": noise[:19_999]}


def test_zip_bomb_is_rejected_alone_and_early(tmp_path: Path) -> None:
    data = zip_of({"bomb.png": bytes(50 * MIB), "ok.png": b"x"})
    tracemalloc.start()
    found = contents(read(tmp_path, data))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == {"bomb.png": "decompression_bomb", "ok.png": b"x"}
    assert peak < 5 * MIB


def test_small_entries_may_be_compressed_well(tmp_path: Path) -> None:
    entries = {"white.bmp": bytes(MIB)}
    assert contents(read(tmp_path, zip_of(entries))) == entries


def test_zip_with_false_sizes(tmp_path: Path) -> None:
    data = bytearray(zip_of({"bomb.png": bytes(20 * MIB)}))
    directory = data.index(b"PK\x01\x02")
    # "Unpacks to one byte", then "is packed in a gigabyte": neither may help.
    for size_at in (22, directory + 24):
        data[size_at : size_at + 4] = struct.pack("<I", 1)
    assert contents(read(tmp_path, bytes(data))) == {"bomb.png": "corrupt_entry"}
    for packed_at, size_at in ((18, 22), (directory + 20, directory + 24)):
        data[packed_at : packed_at + 4] = struct.pack("<I", 2**30)
        data[size_at : size_at + 4] = struct.pack("<I", 20 * MIB)
    tracemalloc.start()
    (member,) = read(tmp_path, bytes(data))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert member.rejected
    assert peak < 6 * MIB


def overlapping_zip(count: int, kernel: bytes) -> bytes:
    """Many directory records that all point to one entry."""
    single = zip_of({"k.png": kernel})
    directory = single.index(b"PK\x01\x02")
    record = single[directory : single.index(b"PK\x05\x06")]
    end = struct.pack("<4H2IH", 0, 0, count, count, len(record) * count, directory, 0)
    return single[:directory] + record * count + b"PK\x05\x06" + end


def test_overlapping_zip_entries_are_counted_each(tmp_path: Path) -> None:
    kernel = random.Random(3).randbytes(4 * MIB)
    reading = start(tmp_path, overlapping_zip(40, kernel))
    found = until_error(reading, ArchiveTooLarge, "unpacks to more than 67,108,864 bytes")
    assert len(found) == 64 // 4


@pytest.mark.parametrize("announced", [2_000_000 % 65536, 1])
def test_millions_of_zip_entries_cost_no_memory(tmp_path: Path, announced: int) -> None:
    record = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, *[0] * 7, 1, *[0] * 6)
    record = record[:46] + b"a"
    count = 2_000_000
    directory = record * count
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, announced, announced, len(directory), 0, 0)
    path = tmp_path / "body"
    path.write_bytes(b"PK\x03\x04" + directory + end)
    del directory
    limits = ArchiveLimits(max_entries=200_000, max_bytes=MIB, max_ratio=9.0, max_file_bytes=MIB)
    tracemalloc.start()
    begin = time.perf_counter()
    with pytest.raises(ArchiveTooLarge, match="at most 200,000"), path.open("rb") as stream:
        next(members(stream, limits=limits, scratch=tmp_path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.perf_counter() - begin < 5
    assert peak < 110 * MIB


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_too_many_entries(tmp_path: Path, make: Callable[[Entries], bytes]) -> None:
    limits = ArchiveLimits(max_entries=3, max_bytes=MIB, max_ratio=200.0, max_file_bytes=MIB)
    entries = {f"{index}.jpg": b"x" for index in range(3)}
    assert len(read(tmp_path, make(entries), limits)) == 3
    # Entries that are left out count too.
    with pytest.raises(ArchiveTooLarge, match="entries"):
        read(tmp_path, make({**entries, ".DS_Store": b"x"}), limits)


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz"])
def test_tar_bomb_counts_while_it_is_skipped(tmp_path: Path, packing: str) -> None:
    data = PACKINGS[packing](tar_of({"ok.jpg": b"x", "bomb.png": bytes(66 * MIB), "z.jpg": b"z"}))
    tracemalloc.start()
    found = until_error(start(tmp_path, data), ArchiveTooLarge, "unpacks to more than")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert contents(found) == {
        "ok.jpg": b"x",
        "bomb.png": "entry_too_large",
    }
    assert peak < 24 * MIB + len(data)


def test_skipped_junk_in_a_tar_counts(tmp_path: Path) -> None:
    data = gzip.compress(tar_of({".hidden": bytes(66 * MIB)}))
    with pytest.raises(ArchiveTooLarge):
        read(tmp_path, data)


def test_tar_bomb_below_the_size_limit(tmp_path: Path) -> None:
    limits = ArchiveLimits(
        max_entries=9, max_bytes=64 * MIB, max_ratio=100.0, max_file_bytes=32 * MIB
    )
    data = gzip.compress(tar_of({"bomb.png": bytes(30 * MIB), "ok.jpg": b"x"}))
    found = contents(read(tmp_path, data, limits))
    assert found == {"bomb.png": "decompression_bomb", "ok.jpg": b"x"}


def test_zeros_after_the_end_of_a_tar_count(tmp_path: Path) -> None:
    data = gzip.compress(tar_of({"a.jpg": b"x"}) + bytes(66 * MIB))
    with pytest.raises(ArchiveTooLarge):
        read(tmp_path, data)


def header(name: str, *, kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_giant_extended_header_is_not_read(tmp_path: Path) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
        data = gzip.compress(header("x", kind=kind, size=30 * MIB) + bytes(30 * MIB))
        with pytest.raises(ArchiveInvalid, match="out of proportion"):
            read(tmp_path, data)


def test_endless_chain_of_extended_headers(tmp_path: Path) -> None:
    data = header("x", kind=tarfile.XGLTYPE) * 5000
    with pytest.raises(ArchiveInvalid, match="out of proportion"):
        read(tmp_path, data)


def test_negative_size_does_not_run_backwards(tmp_path: Path) -> None:
    block = bytearray(header("a.jpg", size=0))
    block[124:136] = b"\xff" * 10 + b"\xfe\x00"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with pytest.raises(ArchiveInvalid, match="negative size"):
        read(tmp_path, header("ok.jpg") + bytes(block) + bytes(1024))


def test_size_beyond_the_end(tmp_path: Path) -> None:
    data = header("a.jpg", size=2**40) + bytes(2048)
    with pytest.raises(ArchiveInvalid, match="cut off"):
        read(tmp_path, data)


def test_sparse_entries_are_rejected(tmp_path: Path) -> None:
    data = header("old.jpg", kind=tarfile.GNUTYPE_SPARSE, size=5) + b"abcde".ljust(512, b"\0")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("new.jpg")
        info.size, info.pax_headers = 3, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        archive.addfile(info, io.BytesIO(b"abc"))
    found = contents(read(tmp_path, data + buffer.getvalue()))
    assert found == {"old.jpg": "unsupported_entry", "new.jpg": "unsupported_entry"}


def test_xz_that_asks_for_gigabytes_is_refused(tmp_path: Path) -> None:
    # An encoder would reserve that memory itself, so the size of the dictionary is edited.
    data = bytearray(lzma.compress(tar_of(PHOTOS)))
    at = data.index(b"\x21\x01", 12) + 2
    data[at] = 39  # 3 GiB (xz file format, 5.3.1)
    block = bytes(data[12 : 12 + 4 * data[12]])
    data[12 + len(block) : 16 + len(block)] = struct.pack("<I", zlib.crc32(block))
    with pytest.raises(ArchiveInvalid, match=r"[Mm]emory"):
        read(tmp_path, bytes(data))


def test_one_entry_in_memory_at_a_time(tmp_path: Path) -> None:
    noise = random.Random(4)
    entries = {f"{index}.jpg": noise.randbytes(2 * MIB) for index in range(8)}
    for data in (zip_of(entries, zipfile.ZIP_STORED), tar_of(entries)):
        reading = start(tmp_path, data)
        next(reading)
        tracemalloc.start()
        count = 0
        while next(reading, None):
            count += 1
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 7
        # In pieces and joined, that makes two.
        assert peak < 5 * MIB


@pytest.mark.parametrize("packing", ["zip", *PACKINGS])
def test_mutations_are_read_or_invalid(tmp_path: Path, packing: str) -> None:
    chance = random.Random(packing)
    entries = {"ä.jpg": b"first" * 20, "b" * 120 + ".png": b"second", "c/d.webp": b""}
    if packing == "zip":
        seed = zip_of(entries)
    else:
        seed = PACKINGS[packing](tar_of(entries)[:6144] + bytes(1024))
    outcomes: set[int | str] = set()
    for _ in range(400):
        data = bytearray(seed)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0xFF, 0x2F, 0x30))
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        try:
            outcomes.add(len(read(tmp_path, bytes(data))))
        except (ArchiveInvalid, ArchiveTooLarge) as error:
            outcomes.add(type(error).__name__)
    assert "ArchiveInvalid" in outcomes
    assert outcomes - {"ArchiveInvalid"}


def test_zip_directory_out_of_proportion(tmp_path: Path) -> None:
    record = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, *[0] * 9, 65535, *[0] * 5)
    directory = (record + bytes(65535)) * 20
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 20, 20, len(directory), 0, 0)
    with pytest.raises(ArchiveTooLarge, match="out of proportion"):
        read(tmp_path, b"PK\x03\x04" + directory + end)
