"""`fewlabels demo` from start to end, with servers of its own and a tiny folder of images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image, ImageDraw

CLASSES = {"bar": (0, 6, 15, 9), "pole": (6, 0, 9, 15)}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images of two classes in folders; 20 of them have a label in labels.csv."""
    folder = tmp_path_factory.mktemp("shapes")
    rows = ["file,label"]
    for label, (left, top, right, bottom) in CLASSES.items():
        (folder / "images" / label).mkdir(parents=True)
        for index in range(30):
            image = Image.new("RGB", (16, 16), (index, 2 * index, 90))
            shift = index % 5 - 2
            box = (left, top + shift, right, bottom + shift)
            ImageDraw.Draw(image).rectangle(box, fill=(200 - index, 180, 160))
            name = f"{label}/{index}.{'png' if index % 2 else 'webp'}"
            image.save(folder / "images" / name)
            rows += [f"{name},{label}"] if index < 10 else []
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def start_demo(place: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    # As at home: as many threads as there are cores, whatever the tests around it run with.
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    return subprocess.Popen(
        [sys.executable, "-m", "core.cli", "demo", "--epochs", "1", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "TMPDIR": str(place)},
    )


def nothing_left(place: Path) -> bool:
    """Whether the demo removed its temporary folders and ended what it started."""
    for process in psutil.process_iter():
        try:
            text = " ".join([process.cwd(), *process.cmdline()])
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if str(place) in text and process.pid != os.getpid():
            return False
    # torch and a server whose socket needs a short path have folders of their own there.
    return list(place.glob("fewlabels-demo*")) == []


def with_data(images: Path) -> list[str | Path]:
    return ["--data", images / "images", "--labels", images / "labels.csv"]


def test_the_whole_road_on_a_folder_of_images(images: Path, tmp_path: Path) -> None:
    process = start_demo(tmp_path, *with_data(images), "--labels-per-class", "4")
    printed, errors = process.communicate(timeout=200)
    assert (process.returncode, errors) == (0, ""), printed
    last: dict[str, Any] = json.loads(printed.splitlines()[-1])
    assert (last["images"], last["labels"]) == (48, 8)
    assert set(last["accuracy"]) == {"scratch", "finetune", "distill"}
    assert all(0 <= share <= 1 for share in last["accuracy"].values())
    assert last["seconds"] > 0
    assert "batch_size is set to 24" in printed
    assert "12 held-out images, 3 models" in printed
    assert "/docs" in printed
    assert "curl -s http://127.0.0.1:" in printed
    assert nothing_left(tmp_path)


def test_ctrl_c_stops_clean(images: Path, tmp_path: Path) -> None:
    process = start_demo(tmp_path, *with_data(images))
    assert process.stdout is not None
    for line in process.stdout:
        if "scratch" in line:
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert printed.splitlines()[-1].strip() == "stopped"
    assert nothing_left(tmp_path)
