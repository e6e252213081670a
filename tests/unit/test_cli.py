"""The command line answers a wrong configuration with one sentence."""

from __future__ import annotations

import os
import socket
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from core import cli
from core.cli import app
from core.config import Settings
from core.embedded.folder import claimed_folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)  # away from anybody's .env
    monkeypatch.delenv("FEWLABELS_DATABASE_URL", raising=False)
    return CliRunner()


def sentence(result: Result) -> str:
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
    return result.stderr


def test_version(run: CliRunner) -> None:
    result = run.invoke(app, ["version"])
    assert (result.exit_code, result.stdout.strip()) == (0, version("fewlabels"))


def test_migrate_wants_a_database(run: CliRunner) -> None:
    assert "FEWLABELS_DATABASE_URL is not set" in sentence(run.invoke(app, ["migrate"]))


def test_a_database_that_is_down_is_told_without_the_password(run: CliRunner) -> None:
    url = "postgresql://team:topsecret@127.0.0.1:1/fewlabels"
    said = sentence(run.invoke(app, ["migrate"], env={"FEWLABELS_DATABASE_URL": url}))
    assert "does not answer" in said
    assert "topsecret" not in said


def test_a_setting_of_the_wrong_form_is_named(run: CliRunner) -> None:
    said = sentence(run.invoke(app, ["up", "--port", "70000"]))
    assert "FEWLABELS_PORT" in said


def test_up_refuses_a_taken_port_before_it_starts_anything(run: CliRunner, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        said = sentence(run.invoke(app, ["up", "--data-dir", "data", "--port", port]))
    assert f"port {port}" in said
    assert "--port" in said
    assert not (tmp_path / "data" / "postgres").exists()


def test_up_refuses_a_folder_that_it_cannot_write(run: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said = sentence(run.invoke(app, ["up", "--data-dir", "file", "--port", "0"]))
    assert "cannot be written" in said


def test_up_refuses_a_folder_that_is_in_use(run: CliRunner, tmp_path: Path) -> None:
    with claimed_folder(tmp_path / "data"):
        said = sentence(run.invoke(app, ["up", "--data-dir", "data", "--port", "0"]))
    assert f"process {os.getpid()}" in said


def test_up_refuses_to_listen_for_others_without_keys(run: CliRunner) -> None:
    said = sentence(run.invoke(app, ["up", "--data-dir", "data", "--host", "0.0.0.0"]))
    assert "FEWLABELS_AUTH_MODE=keys" in said


@pytest.mark.parametrize("mode", ["off", "keys"])
def test_the_greeting_shows_calls_that_work(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(_env_file=None, auth_mode=mode)
    cli._greeting(settings)("http://127.0.0.1:8000")
    said = capsys.readouterr().out
    assert "curl http://127.0.0.1:8000/datasets" in said
    assert ("KEY=$(fewlabels keys create" in said) == (mode == "keys")
    assert ('-H "authorization: Bearer $KEY"' in said) == (mode == "keys")
