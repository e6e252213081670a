"""`fewlabels upload`: its options, what it tells while it works, and its exit codes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from core.client import Line, ServiceClient, ServiceRefused, ServiceUnreachable
from core.errors import Invalid
from core.upload.folder import batches, image_files
from core.upload.progress import UploadDisplay, display
from core.upload.transfer import Destination, Total, insist, send_all

PART_FILES = 1_000
PART_BYTES = 16 * 2**20
LABEL_LINES = 5_000
# A part is small: a line that is silent for longer is dead, and the part is sent again.
ANSWER_SECONDS = 120.0
INTERRUPTED_CODE = 130

KeyOption = Annotated[
    str | None, typer.Option("--api-key", envvar="FEWLABELS_API_KEY", help="If the service asks.")
]
ReportOption = Annotated[
    Path | None,
    typer.Option("--report", help="Write a line of JSON for each file that was refused."),
]


class FolderUnusable(Invalid):
    """The folder or the labels file cannot be used."""


def upload(  # noqa: PLR0913 — each argument is an option of the command
    folder: Annotated[Path, typer.Argument(help="Images, in folders of any depth.")],
    dataset: Annotated[str, typer.Option(help="Name of the dataset; made when there is none.")],
    class_folders: Annotated[
        bool, typer.Option("--class-folders", help="Each image's folder is its class.")
    ] = False,
    labels: Annotated[
        Path | None, typer.Option(help="CSV with the columns file,label; paths as in FOLDER.")
    ] = None,
    url: Annotated[str, typer.Option(help="Where the service runs.")] = "http://127.0.0.1:8000",
    api_key: KeyOption = None,
    parallel: Annotated[int, typer.Option(min=1, max=32, help="Requests at a time.")] = 4,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a service that does not answer.")
    ] = 60.0,
    report: ReportOption = None,
) -> None:
    """Bring a folder of images to a dataset; type it again after a break, and it goes on.

    Images are told by their content: what is there is not sent again.
    """
    out = Console(soft_wrap=True, highlight=False)
    total = Total()
    with exit_codes(out, total), _client(url, api_key) as client, ExitStack() as files:
        _check(folder, labels)
        if report is not None:
            lines = files.enter_context(report.open("w", encoding="utf-8"))
            total.tell = lambda line: lines.write(f"{_json(line)}\n")
        made = insist(lambda: client.ensure_dataset(dataset), patience, threading.Event())
        destination = Destination(client, made, patience, class_folders)
        _send_folder(destination, folder, out, total, parallel=parallel)
        if total.files == 0:
            raise FolderUnusable(f"{folder}: no image files (by their names) in it")
        if labels is not None:
            _send_labels(destination, labels, total)
        _tell(out, total, report)


def _client(url: str, api_key: str | None) -> ServiceClient:
    return ServiceClient(url, api_key=api_key, answer_seconds=ANSWER_SECONDS)


def _check(folder: Path, labels: Path | None) -> None:
    if not folder.is_dir():
        raise FolderUnusable(f"{folder}: not a folder")
    if labels is not None:
        if not labels.is_file():
            raise FolderUnusable(f"{labels}: not a file")
        for _ in _csv_parts(labels):
            pass  # before a hundred thousand images are sent


def _send_folder(
    destination: Destination, folder: Path, out: Console, total: Total, *, parallel: int
) -> None:
    parts = batches(image_files(folder), max_files=PART_FILES, max_bytes=PART_BYTES)
    with display(out) as shown:
        counter = threading.Thread(target=_count, args=(folder, shown), daemon=True)
        counter.start()
        for sent in send_all(destination, parts, parallel=parallel):
            total.take(sent)
            shown.show(files=total.files, byte_count=total.byte_count)


def _count(folder: Path, shown: UploadDisplay) -> None:
    # Beside the upload, for the bar alone: it need not wait until a million files are counted.
    files, size = 0, 0
    try:
        for file in image_files(folder):
            files, size = files + 1, size + file.size
    except OSError:
        return  # the upload comes to the same folder and says it
    shown.expect(files=files, byte_count=size)


def _send_labels(destination: Destination, path: Path, total: Total) -> None:
    client, dataset_id = destination.client, destination.dataset_id
    for header, lines in _csv_parts(path):
        text = "".join([header, *lines])
        answer = destination.insist(lambda: client.label_csv(dataset_id, text))  # noqa: B023
        total.labelled += answer.labelled
        total.refuse(answer.lines)


def _csv_parts(path: Path) -> Iterator[tuple[str, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            while lines := list(islice(file, LABEL_LINES)):
                # A quoted value may go on in the next line.
                while sum(line.count('"') for line in lines) % 2 and (more := file.readline()):
                    lines.append(more)
                yield header, lines
    except UnicodeDecodeError as error:
        raise FolderUnusable(f"{path}: CSV must be UTF-8; byte {error.start} is not") from None


def _tell(out: Console, total: Total, report: Path | None) -> None:
    there = f"{total.added:,} added, {total.present:,} were there"
    out.print(f"  {there}, {total.refused:,} refused", markup=False)
    if total.labelled:
        out.print(f"  {total.labelled:,} labels set", markup=False)
    for line in total.lines:
        out.print(f"  {line.file}: {line.detail}", style="yellow", markup=False)
    if report is not None:
        out.print(f"  all {total.refused:,} refusals: {report}", style="dim", markup=False)
    elif more := total.refused - len(total.lines):
        out.print(f"  … and {more:,} more; --report FILE has all", style="yellow", markup=False)


def _json(line: Line) -> str:
    told = {"file": line.file, "code": line.code, "detail": line.detail}
    return json.dumps(told, ensure_ascii=False)


def _go_on(total: Total) -> str:
    return f"{total.files:,} files are done; the same command goes on from there"


@contextmanager
def exit_codes(out: Console, total: Total) -> Iterator[None]:
    """One sentence for every error: 2 for an unusable folder, 1 for failures, 130 for a stop."""
    err = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        yield
    except FolderUnusable as error:
        err.print(f"fewlabels: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    except ServiceRefused as error:
        told = f"{error}; {_go_on(total)}" if isinstance(error, ServiceUnreachable) else str(error)
        err.print(f"fewlabels: {told}", style="red", markup=False)
        raise typer.Exit(1) from None
    except OSError as error:
        err.print(f"fewlabels: {error.filename}: {error.strerror}", style="red", markup=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        out.print(f"  stopped; {_go_on(total)}", style="dim")
        raise typer.Exit(INTERRUPTED_CODE) from None
