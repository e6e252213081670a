"""`fewlabels demo` answers unusable input with one sentence and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from core.cli import app


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    images = tmp_path / "images"
    images.mkdir()
    Image.new("L", (8, 8)).save(images / "a.png")
    return images


def said(code: int, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["demo", *arguments])
    assert result.exit_code == code
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr
    return result.stderr


def test_unusable_input(folder: Path) -> None:
    Path("labels.csv").write_text("file,label\na.png,x\n")
    assert "no folder" in said(2, "--data", "nowhere", "--labels", "labels.csv")
    assert "one class" in said(2, "--data", "images", "--labels", "labels.csv")
    assert "cannot read" in said(2, "--data", "images", "--labels", "nowhere.csv")
    assert "belong together" in said(2, "--data", "images")
    assert "belong together" in said(2, "--labels", "labels.csv")


def test_nobody_at_the_url(folder: Path) -> None:
    assert "does not answer" in said(1, "--url", "http://127.0.0.1:1")
