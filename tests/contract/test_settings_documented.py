"""Every setting has a description, and `.env.example` is made of them.

After a change: `python tests/contract/test_settings_documented.py > .env.example`
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import get_args

import pytest
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from core.config import Settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"
HEAD = """\
# The settings of Fewlabels with their defaults. Copy what you change into a file `.env` in the
# folder you start from, or set it in the environment, which wins over the file.
"""
WIDTH = 98


def example() -> str:
    """The text of `.env.example`."""
    return "\n".join([HEAD, *(_entry(*item) for item in Settings.model_fields.items())])


def _entry(name: str, field: FieldInfo) -> str:
    said = field.description or ""
    allowed = [str(value) for value in get_args(field.annotation) if isinstance(value, str)]
    if allowed:
        said = f"{said} One of: {', '.join(allowed)}."
    comment = textwrap.wrap(said, WIDTH, break_long_words=False, break_on_hyphens=False)
    default = "" if field.default is None else str(field.default)
    return "\n".join([*(f"# {line}" for line in comment), f"# {variable(name)}={default}", ""])


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{Settings.model_config.get('env_prefix', '')}{name}".upper()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_says_what_it_is_and_has_a_default(name: str) -> None:
    field = Settings.model_fields[name]
    assert field.description
    assert len(field.description) > 20
    assert field.description.endswith(".")
    assert field.default is not PydanticUndefined


def test_the_example_file_is_up_to_date() -> None:
    assert EXAMPLE.read_text(encoding="utf-8") == example(), (
        "run: python tests/contract/test_settings_documented.py > .env.example"
    )


def test_the_example_as_it_stands_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)
    assert Settings(_env_file=EXAMPLE) == Settings(_env_file=None)


def test_the_example_with_every_line_switched_on_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)
    switched_on = tmp_path / "env"
    text = EXAMPLE.read_text(encoding="utf-8")
    switched_on.write_text(re.sub(r"^# (FEWLABELS_\w+=)", r"\1", text, flags=re.MULTILINE))
    assert len(re.findall(r"^FEWLABELS_", switched_on.read_text(), re.MULTILINE)) == len(
        Settings.model_fields
    )
    assert Settings(_env_file=switched_on) == Settings(_env_file=None)


if __name__ == "__main__":
    sys.stdout.write(example())
