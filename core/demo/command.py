"""`fewlabels demo`: its options, its exit codes, and where its service and images come from."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from core.client import ServiceClient
from core.config import Settings, load_settings
from core.demo.draw import draw_digits, draw_labelled
from core.demo.host import on_embedded_service
from core.demo.images import ImagesUnusable, read_folder, write_digits
from core.demo.leftovers import KEPT_PREFIX, PREFIX, end_killed_demos
from core.demo.report import DemoResult
from core.demo.run import Errand, Interrupted, Walk
from core.errors import FewlabelsError

PLAIN_WIDTH = 100
INTERRUPTED_CODE = 130
# Without --data-dir and --port nothing is touched that a running service uses.
FREE_PORT = 0

DataOption = Annotated[Path | None, typer.Option("--data", help="Your images: a folder.")]
LabelsOption = Annotated[
    Path | None, typer.Option("--labels", help="Your labels: CSV with the columns file,label.")
]
PerClass = Annotated[int, typer.Option(min=1, help="Labels of each class to train on.")]
Preset = Literal["photo", "small", "greyscale", "document"]
Augmentation = Annotated[
    Preset | None,
    typer.Option(help="document for the digits, else auto.", show_default=False),
]
KeyOption = Annotated[
    str | None,
    typer.Option("--api-key", envvar="FEWLABELS_API_KEY", help="For --url, if it needs one."),
]


def demo(  # noqa: PLR0913 — each argument is an option of the command
    data: DataOption = None,
    labels: LabelsOption = None,
    labels_per_class: PerClass = 5,
    seed: Annotated[int, typer.Option(help="Of the draw of those labels.")] = 0,
    augmentation: Augmentation = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of every stage, to be quick.")] = None,
    url: Annotated[str | None, typer.Option(help="Use the service that runs there.")] = None,
    api_key: KeyOption = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Keep servers, images and models there.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = FREE_PORT,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary data folder.")] = False,
) -> None:
    """Run the three stages on real images through the HTTP API, and print what comes out.

    Without options: on scikit-learn's handwritten digits, with servers of its own.
    """
    began = time.monotonic()
    out = Console(highlight=False)
    if not out.is_terminal:
        out = Console(highlight=False, width=PLAIN_WIDTH)
    with exit_codes(out), tempfile.TemporaryDirectory(prefix="fewlabels-demo-") as scratch:
        errand = _errand(
            data,
            labels,
            per_class=labels_per_class,
            seed=seed,
            digits=Path(scratch) / "digits",
            augmentation=augmentation,
            epochs=epochs,
        )
        if url is not None:
            with ServiceClient(url, api_key=api_key) as client:
                result = Walk(client, out, stopped=lambda: False).run(errand)
        else:
            with _data_folder(data_dir, keep=keep, out=out) as folder:
                result = _on_own_service(errand, _own_settings(folder, port), out)
    out.print()
    out.print(
        json.dumps(result.to_json(time.monotonic() - began)),
        markup=False,
        soft_wrap=True,
    )


@contextmanager
def exit_codes(out: Console) -> Iterator[None]:
    """One sentence for every error: 2 for unusable input, 1 for failures, 130 for a stop."""
    err = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        yield
    except FewlabelsError as error:
        err.print(f"fewlabels: {error}", style="red", markup=False)
        raise typer.Exit(2 if isinstance(error, ImagesUnusable) else 1) from None
    except OSError as error:
        err.print(f"fewlabels: {error.filename}: {error.strerror}", style="red", markup=False)
        raise typer.Exit(1) from None
    except (Interrupted, KeyboardInterrupt):
        out.print("  stopped", style="dim")
        raise typer.Exit(INTERRUPTED_CODE) from None


def _errand(
    data: Path | None,
    labels: Path | None,
    *,
    per_class: int,
    seed: int,
    digits: Path,
    augmentation: str | None,
    epochs: int | None,
) -> Errand:
    if (data is None) != (labels is None):
        found, missing = ("--data", "--labels") if labels is None else ("--labels", "--data")
        raise ImagesUnusable(f"{missing}: found {found} alone; the two belong together")
    if data is None or labels is None:
        # Digits have a right way round: a mirrored one is no digit.
        return Errand(
            name="digits",
            draw=draw_digits(write_digits(digits), per_class=per_class, seed=seed),
            augmentation=augmentation or "document",
            epochs=epochs,
        )
    draw = draw_labelled(read_folder(data, labels), per_class=per_class, seed=seed)
    return Errand(name="images", draw=draw, augmentation=augmentation, epochs=epochs)


@contextmanager
def _data_folder(data_dir: Path | None, *, keep: bool, out: Console) -> Iterator[Path]:
    for killed in end_killed_demos():
        out.print(f"  ended what a killed demo left in {killed}", style="dim", markup=False)
    prefix = KEPT_PREFIX if keep else PREFIX
    folder = data_dir or Path(tempfile.mkdtemp(prefix=prefix))
    kept = keep or data_dir is not None
    out.print(
        f"  data folder {folder}{'' if kept else ' (removed at the end; --keep keeps it)'}",
        style="dim",
        markup=False,
        soft_wrap=True,
    )
    try:
        yield folder
    except FewlabelsError:
        if not kept:
            out.print("  the logs go with the data folder; --keep keeps them", style="dim")
        raise
    finally:
        if not kept:
            shutil.rmtree(folder)
    if kept:
        out.print(f"  everything is kept: fewlabels up --data-dir {folder}", soft_wrap=True)


def _own_settings(folder: Path, port: int) -> Settings:
    # Never on somebody's configured database: what the demo makes there would stay.
    settings = load_settings(data_dir=folder, host="127.0.0.1", port=port, auth_mode="off")
    own = {"database_url": None, "broker_url": None, "blob_url": None}
    return settings.model_copy(update=own)


def _on_own_service(errand: Errand, settings: Settings, out: Console) -> DemoResult:
    def walk(url: str, stopped: Callable[[], bool]) -> DemoResult:
        with ServiceClient(url) as client:
            return Walk(client, out, stopped=stopped).run(errand)

    def tell(line: str) -> None:
        out.print(f"  {line}", style="dim", markup=False)

    return on_embedded_service(settings, walk, tell=tell)
