"""Commands that only speak HTTP start light, and are the same as in the whole command line."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from core.cli import app
from core.entry import LIGHT, light

HEAVY = ("sqlalchemy", "celery", "minio", "alembic", "torch", "fastapi", "psycopg")


@pytest.mark.parametrize("word", LIGHT)
def test_they_load_no_library_of_the_service(word: str) -> None:
    program = (
        f"import sys; from core.entry import light; light({word!r}); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"


@pytest.mark.parametrize("words", [["upload", "--help"], ["jobs", "--help"], ["jobs", "watch"]])
def test_they_are_what_the_whole_command_line_has(words: list[str]) -> None:
    asked = [
        CliRunner().invoke(made, words, prog_name="fewlabels") for made in (app, light(words[0]))
    ]
    assert asked[0].output == asked[1].output
    assert asked[0].exit_code == asked[1].exit_code
    assert "Usage: fewlabels" in asked[0].output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["version"], 0, "."),
        ([], 2, "Usage: fewlabels"),
        (["nonsense"], 2, "No such command"),
        (["upload", "/nowhere", "--dataset", "x"], 2, "not a folder"),
    ],
)
def test_every_word_finds_its_command(words: list[str], code: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "core.entry", *words], capture_output=True, check=False, text=True
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
