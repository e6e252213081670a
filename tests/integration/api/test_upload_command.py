"""`fewlabels upload` against the real API: folders, classes, labels, and a line that is cut."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from typer.testing import CliRunner, Result

from core.cli import app as commands
from tests.integration.api.listening import Line, listening
from tests.integration.api.problems import picture, pictures

Run = Callable[..., Result]


@pytest.fixture
def run(app: FastAPI, client: TestClient) -> Any:
    """Runs `fewlabels upload` with these arguments against the API on a socket."""
    with listening(app) as port:

        def upload(*arguments: object, port: int = port) -> Result:
            url = f"http://127.0.0.1:{port}"
            words = ["upload", *map(str, arguments), "--url", url]
            return CliRunner().invoke(commands, words)

        upload.port = port  # type: ignore[attr-defined]
        yield upload


@pytest.fixture
def name() -> str:
    return f"up-{uuid4().hex}"


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def dataset(client: TestClient, name: str) -> dict[str, Any]:
    (item,) = client.get("/datasets", params={"name": name}).json()["items"]
    return dict(client.get(f"/datasets/{item['id']}").json())


def test_a_folder_with_classes_twice(
    client: TestClient, run: Run, name: str, tmp_path: Path
) -> None:
    files = {f"{'bolt' if n % 2 else 'nuts/hex nut'}/p{n}.png": picture(n) for n in range(20)}
    folder = write(tmp_path / "images", {**files, "top.png": picture(99), "bolt/no.jpg": b"text"})
    write(folder, {"bolt/copy.png": picture(1)})
    report = tmp_path / "report.jsonl"
    first = run(folder, "--dataset", name, "--class-folders", "--report", report)
    assert first.exit_code == 0, first.output
    assert "21 added, 1 were there, 1 refused" in first.output
    assert "20 labels set" in first.output
    assert [json.loads(line)["file"] for line in report.read_text().splitlines()] == ["bolt/no.jpg"]
    made = dataset(client, name)
    assert made["image_count"] == 21
    assert made["labels_per_class"] == {"bolt": 10, "hex nut": 10}
    names = client.get(f"/datasets/{made['id']}/images?name=bolt/copy.png").json()["items"]
    assert names[0]["names"] == ["bolt/copy.png", "bolt/p1.png"]
    again = run(folder, "--dataset", name, "--class-folders")
    assert "0 added, 22 were there, 1 refused" in again.output
    assert dataset(client, name) == made


def test_a_labels_file(client: TestClient, run: Run, name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "images", {f"a/{k}": v for k, v in pictures(4).items()})
    labels = tmp_path / "labels.csv"
    labels.write_text('file,label\na/p0.png,"bolt, ""old"""\np1.png,nut\nnowhere.png,nut\n')
    done = run(folder, "--dataset", name, "--labels", labels)
    assert done.exit_code == 0, done.output
    assert "2 labels set" in done.output
    assert "nowhere.png" in done.output
    assert dataset(client, name)["labels_per_class"] == {'bolt, "old"': 1, "nut": 1}


def test_a_line_that_is_cut_and_the_same_command_again(
    client: TestClient, run: Run, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.upload.command.PART_FILES", 20)
    folder = write(tmp_path / "images", {f"a/{k}": v for k, v in pictures(200).items()})
    line = Line(run.port, dies_after=100_000)  # type: ignore[attr-defined]
    words = (folder, "--dataset", name, "--patience", "1", "--parallel", "1")
    cut = run(*words, port=line.port)
    assert cut.exit_code == 1
    assert "does not answer" in cut.output
    assert "the same command goes on from there" in cut.output
    kept = dataset(client, name)["image_count"]
    assert 0 < kept < 200
    assert run(*words).exit_code == 0
    assert dataset(client, name)["image_count"] == 200


def test_a_short_break_is_waited_for(
    app: FastAPI, client: TestClient, name: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "images", pictures(5))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    words = ["upload", str(folder), "--dataset", name, "--url", f"http://127.0.0.1:{port}"]
    with ThreadPoolExecutor() as threads:
        done = threads.submit(CliRunner().invoke, commands, words)
        time.sleep(1.0)
        assert not done.done()
        with listening(app, port=port):
            assert done.result(30).exit_code == 0
    assert dataset(client, name)["image_count"] == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "--dataset", "x"], "nowhere: not a folder"),
        ([".", "--dataset", "x", "--labels", "nowhere.csv"], "nowhere.csv: not a file"),
    ],
)
def test_what_cannot_be_sent_is_said(run: Run, words: list[str], said: str) -> None:
    refused = run(*words)
    assert (refused.exit_code, said in refused.output) == (2, True), refused.output


def test_a_folder_without_images(run: Run, name: str, tmp_path: Path) -> None:
    refused = run(write(tmp_path, {"a.txt": b"x"}), "--dataset", name)
    assert (refused.exit_code, "no image files" in refused.output) == (2, True), refused.output


def test_names_and_labels_as_people_have_them(
    client: TestClient, run: Run, name: str, tmp_path: Path
) -> None:
    """Umlauts in both of Unicode's forms, one name in two folders, a spreadsheet's separators."""
    files = {"Größe M8/bild 1.jpg": picture(1), "Größe M10/bild 1.jpg": picture(2)}
    folder = write(tmp_path / "Fotos Prüfstand", {**files, "u\u0308ber #1%.png": picture(3)})
    labels = tmp_path / "labels.csv"
    lines = ["file;label", 'Größe M8/bild 1.jpg;"8; klein"']
    lines += ["Größe M10/bild 1.jpg;zehn", "über #1%.png;Maß", "bild 1.jpg;welches?"]
    labels.write_text("\r\n".join(lines), encoding="utf-8-sig")
    done = run(folder, "--dataset", name, "--labels", labels)
    assert done.exit_code == 0, done.output
    assert "3 labels set" in done.output
    assert "2 images have this name" in done.output
    assert dataset(client, name)["labels_per_class"] == {"8; klein": 1, "zehn": 1, "Maß": 1}


def test_labels_that_cannot_be_read_are_said_before_images_are_sent(
    client: TestClient, run: Run, name: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "images", pictures(2))
    labels = tmp_path / "labels.csv"
    labels.write_bytes("file,label\np0.png,Größe\n".encode("latin-1"))
    refused = run(folder, "--dataset", name, "--labels", labels)
    assert (refused.exit_code, "CSV must be UTF-8" in refused.output) == (2, True), refused.output
    assert client.get("/datasets", params={"name": name}).json()["items"] == []
