"""The command `fewlabels`, which loads what its first word needs and nothing else.

`fewlabels upload` and `fewlabels jobs` speak HTTP alone. Without the libraries of the service they
begin in a fifth of the time, which a short upload is longer for than its files.
"""

from __future__ import annotations

import importlib
import sys

import typer

# Of these the module has the command or the group of commands under the same name.
LIGHT = {"upload": "core.upload.command", "jobs": "core.monitor.command"}


def main() -> None:
    """Run the command that the words of this process name."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    app: typer.Typer = light(word) if word in LIGHT else importlib.import_module("core.cli").app
    app(prog_name="fewlabels")


def light(word: str) -> typer.Typer:
    """The command line with one command, which needs no server here."""
    app = typer.Typer(
        name="fewlabels",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        # With one command alone typer would take its name for a word of its own.
        callback=lambda: None,
    )
    found = getattr(importlib.import_module(LIGHT[word]), word)
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=word)
    else:
        app.command()(found)
    return app


if __name__ == "__main__":
    main()
