"""Zip archives of a bounded size."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from core.demo.archives import archives
from core.demo.images import Sample


def test_every_file_is_in_one_archive(tmp_path: Path) -> None:
    samples = []
    for index, size in enumerate([40, 40, 40, 300, 10]):
        path = tmp_path / f"{index}.png"
        path.write_bytes(bytes([index]) * size)
        os.utime(path, (0, 0))  # 1970: before the first date that zip knows
        samples.append(Sample(f"deep/ä {index}.png", path))
    packed, paths = [], []
    for archive in archives(samples, most_bytes=100):
        with zipfile.ZipFile(archive) as opened:
            assert opened.testzip() is None
            packed.append(opened.namelist())
            for name in opened.namelist():
                assert set(opened.read(name)) == {int(name[7])}
        paths.append(archive)
    expected = [[0, 1], [2], [3], [4]]
    assert packed == [[samples[index].name for index in part] for part in expected]
    assert not any(path.exists() for path in paths)
