"""The commands and clients of docs/serving.md, run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient

from api.main import create_app
from core.config import Settings
from tests.soak.requests import drawing
from tests.tiny_models import CLASSES

PAGE = Path(__file__).parents[3] / "docs" / "serving.md"
BLOCK = re.compile(r"^```(bash|python|javascript)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 60
BLOCKS = dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
RUNNERS = {
    "bash": ["bash", "-euo", "pipefail", "-c"],
    "python": [sys.executable, "-c"],
    "javascript": ["node", "--input-type=module", "-e"],
}


@pytest.fixture(scope="module")
def address(settings: Settings) -> Iterator[str]:
    """The service on a free port."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + SECONDS
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def photos(
    tmp_path_factory: pytest.TempPathFactory, client: TestClient, add_model: Callable[..., UUID]
) -> Path:
    """A folder with `photos/`, beside a service whose alias `production` is a classifier."""
    model = add_model(classes=CLASSES)
    client.put("/aliases/production", json={"model_id": str(model)}).raise_for_status()
    folder = tmp_path_factory.mktemp("serving")
    (folder / "photos").mkdir()
    for seed, name in enumerate(("a.jpg", "b.jpg")):
        (folder / "photos" / name).write_bytes(drawing(seed))
    return folder


def test_the_page_has_a_client_for_each() -> None:
    assert BLOCKS.keys() == RUNNERS.keys()


@pytest.mark.parametrize("language", RUNNERS)
def test_it_runs_as_it_stands(language: str, address: str, photos: Path) -> None:
    if shutil.which(RUNNERS[language][0]) is None:
        pytest.skip(f"{RUNNERS[language][0]} is not installed")
    result = subprocess.run(
        [*RUNNERS[language], BLOCKS[language]],
        cwd=photos,
        env={**os.environ, "API": address},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    assert "problem" not in result.stdout, result.stdout
    if language != "bash":
        assert any(name in result.stdout for name in CLASSES)
        return
    assert result.stdout.count('"predictions"') == 3
    assert result.stdout.count('"embedding"') == 1
    assert np.load(photos / "vectors.npy").shape[0] == 2
