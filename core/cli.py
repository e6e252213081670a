"""The command line: `fewlabels up`, `fewlabels migrate`, …"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy.exc import OperationalError

from core.config import load_settings
from core.db.session import upgrade
from core.embedded.service import run_service
from core.errors import FewlabelsError

app = typer.Typer(
    name="fewlabels",
    help="From unlabelled images and a handful of labels to a model that an application can call.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# Soft wrap: a URL, a path or a command that is copied from the screen must stay in one piece.
out = Console(soft_wrap=True, highlight=False)
err = Console(soft_wrap=True, highlight=False, stderr=True)

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder for servers, images and models.", show_default=False),
]


@app.command()
def up(
    data_dir: DataDir = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default=False)
    ] = None,
) -> None:
    """Run the service; servers that no URL is set for are started along with it."""
    with sentences():
        settings = load_settings(data_dir=data_dir, host=host, port=port)
        say(f"data folder {settings.data_dir}")
        run_service(settings, tell=say, ready=_greeting(settings.data_dir))


@app.command()
def migrate() -> None:
    """Bring the database at FEWLABELS_DATABASE_URL up to date."""
    with sentences():
        upgrade(load_settings().sqlalchemy_url)
        say("the database is up to date")


@app.command()
def version() -> None:
    """Print the version."""
    print(installed_version("fewlabels"))


@contextmanager
def sentences() -> Iterator[None]:
    """End the command with one sentence and exit code 1 where an error of ours comes out."""
    try:
        yield
    except FewlabelsError as error:
        reason = str(error)
    except OperationalError as error:
        reason = f"the database does not answer: {str(error.orig).splitlines()[0]}"
    else:
        return
    err.print(f"fewlabels: {reason}", style="red", markup=False)
    raise typer.Exit(1)


def say(line: str) -> None:
    """Print one line of progress."""
    out.print(f"  {line}", style="dim", markup=False)


def _greeting(data_dir: Path) -> Callable[[str], None]:
    def greet(url: str) -> None:
        json = "-H 'content-type: application/json'"
        lines = [
            f"\nFewlabels is up at {url}",
            f"  Swagger UI  {url}/docs",
            f"  logs        {data_dir / 'logs'}",
            "\nTry it:",
            f"  curl {url}/healthz",
            f'  curl {url}/datasets {json} -d \'{{"name": "mine"}}\'',
            f"  curl {url}/datasets",
            "\nCtrl-C stops it; everything is there at the next start.",
        ]
        for line in lines:
            out.print(line, markup=False)

    return greet


if __name__ == "__main__":
    app()
