"""Hostile files and archives: each is refused with its code, within a second and 300 MB."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.images.hostile import WHOLE, archives, files, unreadable_archives

ROOT = Path(__file__).parents[3]
SECONDS, MEGABYTES = 1.0, 300
FILES, ARCHIVES, UNREADABLE = files(), archives(), unreadable_archives()
CUT = {name for name in FILES if " cut at " in name}


@dataclass(frozen=True)
class Reading:
    found: dict[str, tuple[list[str], float]]
    peak_mb: float


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them, as files."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, (data, _) in FILES.items():
        (folder / name).write_bytes(data)
    for packed in (ARCHIVES, UNREADABLE):
        for name, (data, _) in packed.items():
            (folder / f"{name}.archive").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def reading(folder: Path) -> Reading:
    """All of them, read by one process."""
    return read_by_one_process(str(folder))


def read_by_one_process(*words: str) -> Reading:
    command = [sys.executable, "-m", "tests.unit.images.hostile_reader", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return Reading(**json.loads(done.stdout))


def test_there_are_enough() -> None:
    assert len(FILES) - len(CUT) + len(ARCHIVES) + len(UNREADABLE) >= 90
    assert len(CUT) >= 300


@pytest.mark.parametrize("name", sorted(FILES.keys() - CUT))
def test_file_is_refused(reading: Reading, name: str) -> None:
    codes, seconds = reading.found[name]
    assert codes == [FILES[name][1]]
    assert seconds < SECONDS


@pytest.mark.parametrize("whole", WHOLE)
def test_file_cut_at_every_tenth_byte_is_refused(reading: Reading, whole: str) -> None:
    cut = {name for name in CUT if name.startswith(f"{whole} cut")}
    assert len(cut) >= 10
    for name in cut:
        codes, seconds = reading.found[name]
        assert codes == [FILES[name][1]], name
        assert seconds < SECONDS


@pytest.mark.parametrize("name", ARCHIVES)
def test_what_is_bad_in_an_archive_is_refused_alone(reading: Reading, name: str) -> None:
    codes, seconds = reading.found[f"{name}.archive"]
    assert codes.count("good") == 1
    assert set(codes) - {"good"} == ARCHIVES[name][1]
    assert seconds < SECONDS


@pytest.mark.parametrize("name", UNREADABLE)
def test_archive_is_refused(reading: Reading, name: str) -> None:
    codes, seconds = reading.found[f"{name}.archive"]
    assert codes[-1] == UNREADABLE[name][1]
    assert seconds < SECONDS


def test_memory_stays_small(reading: Reading) -> None:
    assert reading.peak_mb < MEGABYTES


def test_as_the_api_reads_them_for_an_answer(folder: Path) -> None:
    """The same refusals, for next to nothing of the API's own time and memory."""
    served = read_by_one_process(str(folder), "served")
    assert {name: codes for name, (codes, _) in served.found.items()} == {
        name: [code] for name, (_, code) in FILES.items()
    }
    assert max(seconds for _, seconds in served.found.values()) < SECONDS
    assert served.peak_mb < MEGABYTES
