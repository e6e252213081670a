"""Which files of a folder are sent, in which parts, and how they are packed."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from core.upload.folder import LocalFile, batches, image_files
from core.upload.transfer import PIECE_BYTES, Tar

KEPT = ("a.png", "b.JPG", "one/two/c.jpeg", "one/d.webp", "ünï/e f.tiff")
LEFT = (".hidden.png", ".git/x.png", "__MACOSX/y.png", "Thumbs.db", "notes.txt", "z.svg")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate((*KEPT, *LEFT)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(number + 1))
    return tmp_path


def test_images_are_found_and_the_rest_is_left(folder: Path) -> None:
    found = {file.name: file for file in image_files(folder)}
    assert found.keys() == set(KEPT)
    assert found["one/two/c.jpeg"].class_name == "two"
    assert found["a.png"].class_name is None
    assert found["b.JPG"].size == 2


def test_links_to_folders_do_not_lead_in_circles(folder: Path) -> None:
    (folder / "one" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "linked.png").symlink_to(folder / "a.png")
    assert {file.name for file in image_files(folder)} == {*KEPT, "linked.png"}


def test_the_first_files_come_before_the_last_are_listed(folder: Path) -> None:
    files = image_files(folder)
    next(files)
    for place in (folder / "one", folder / "ünï"):
        for path in sorted(place.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert len(list(files)) <= 1  # of the top folder; what lay deeper was not listed ahead


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    (file,) = image_files(tmp_path)
    assert file.name == "caf�.png"
    assert file.path.read_bytes() == b"x"


def test_parts_keep_to_their_limits() -> None:
    sizes = [5, 5, 1, 20, 1, 1, 1, 1]
    files = [LocalFile(Path(str(n)), str(n), size) for n, size in enumerate(sizes)]
    parts = list(batches(iter(files), max_files=3, max_bytes=10))
    assert [[file.size for file in part] for part in parts] == [[5, 5], [1], [20], [1, 1, 1], [1]]
    assert list(batches(iter([]), max_files=3, max_bytes=10)) == []


def test_a_tar_of_parts_is_a_tar_as_often_as_it_is_sent() -> None:
    large = bytes(PIECE_BYTES)
    contents = {"a.png": b"1", "ü/" + "n" * 200 + ".png": bytes(512), "e": b"", "l": large}
    packed = Tar([*contents.items(), ("last", b"2")])
    for _ in range(2):
        pieces = list(packed)
        assert len(pieces) == 2
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
            read = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
        assert read == {**contents, "last": b"2"}
