"""Parts of a folder on their way: hash, ask what is missing, send that, name the classes."""

from __future__ import annotations

import hashlib
import tarfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar

from core.client import Line, ServiceClient, ServiceUnreachable
from core.upload.folder import LocalFile

ResultT = TypeVar("ResultT")
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0
BLOCK = tarfile.BLOCKSIZE
PIECE_BYTES = 256 * 1024
# The service takes 32 MiB unless it is told otherwise; what is sent lies in memory.
MAX_FILE_BYTES = 64 * 2**20
SHOWN_LINES = 10


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a part: `present` files were there before, `lines` are those refused."""

    files: int
    byte_count: int
    added: int
    present: int
    lines: Sequence[Line] = ()
    labelled: int = 0


@dataclass(slots=True)
class Total:
    """What became of all parts so far; `lines` are the first of `refused` ones.

    All of them go to `tell` as they come: a folder may have a million files that are no images.
    """

    files: int = 0
    byte_count: int = 0
    added: int = 0
    present: int = 0
    labelled: int = 0
    refused: int = 0
    lines: list[Line] = field(default_factory=list)
    tell: Callable[[Line], object] = field(default=lambda _: None)

    def refuse(self, lines: Sequence[Line]) -> None:
        """Count what was refused."""
        self.refused += len(lines)
        self.lines += lines[: SHOWN_LINES - len(self.lines)]
        for line in lines:
            self.tell(line)

    def take(self, sent: Sent) -> None:
        """Count a part."""
        self.files += sent.files
        self.byte_count += sent.byte_count
        self.added += sent.added
        self.present += sent.present
        self.labelled += sent.labelled
        self.refuse(sent.lines)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to, and how long to wait for a service that does not answer."""

    client: ServiceClient
    dataset_id: str
    patience_seconds: float
    class_folders: bool = False
    stopped: threading.Event = field(default_factory=threading.Event)

    def insist(self, call: Callable[[], ResultT]) -> ResultT:
        """The call's result, as patiently as this upload is."""
        return insist(call, self.patience_seconds, self.stopped)


def insist(
    call: Callable[[], ResultT], patience_seconds: float, stopped: threading.Event
) -> ResultT:
    """The call's result, tried again while the service does not answer.

    Raises:
        ServiceUnreachable: It still did not when the patience was over.
        ServiceRefused: It answered that it will not.
    """
    give_up = time.monotonic() + patience_seconds
    pause = FIRST_PAUSE
    while True:
        try:
            return call()
        except ServiceUnreachable:
            if time.monotonic() + pause > give_up or stopped.is_set():
                raise
        stopped.wait(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def send_all(
    destination: Destination, parts: Iterable[Sequence[LocalFile]], *, parallel: int
) -> Iterator[Sent]:
    """Send parts, several at a time, as they end; no more are in memory than are under way.

    Raises:
        ServiceRefused: A part could not be sent; those under way are waited for.
    """
    with ThreadPoolExecutor(max_workers=parallel) as threads:
        running: set[Future[Sent]] = set()
        try:
            for part in parts:
                running.add(threads.submit(send, destination, part))
                if len(running) > parallel:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BaseException:
            destination.stopped.set()
            for future in running:
                future.cancel()
            raise


def send(destination: Destination, part: Sequence[LocalFile]) -> Sent:
    """Bring the images of a part to the dataset, and the names of their folders as classes."""
    contents, unreadable = _read(part)
    names: dict[str, list[str]] = defaultdict(list)
    for held in contents:
        names[held.sha256].append(held.file.name)
    client, dataset_id = destination.client, destination.dataset_id
    missing: set[str] = set()
    if names:
        missing = set(destination.insist(lambda: client.missing_images(dataset_id, names)))
    # All names of a missing image go along: the service finds out that the bytes are the same.
    wanted = Tar([(held.file.name, held.data) for held in contents if held.sha256 in missing])
    added, present, lines = 0, len(contents) - len(wanted.files), unreadable
    if wanted.files:
        upload = destination.insist(lambda: client.upload_tar(dataset_id, wanted))
        added, present = upload.added, present + upload.duplicates
        lines = lines + [line for line in upload.lines if line.outcome == "rejected"]
    labelled = 0
    if destination.class_folders:
        refused = {line.file for line in lines}
        labels = [
            {"sha256": held.sha256, "label": held.file.class_name}
            for held in contents
            if held.file.class_name is not None and held.file.name not in refused
        ]
        labelled, wrong = _label(destination, labels)
        lines = lines + wrong
    return Sent(
        files=len(part),
        byte_count=sum(file.size for file in part),
        added=added,
        present=present,
        lines=lines,
        labelled=labelled,
    )


def _label(destination: Destination, labels: Sequence[Mapping[str, Any]]) -> tuple[int, list[Line]]:
    if not labels:
        return 0, []
    client, dataset_id = destination.client, destination.dataset_id
    report = destination.insist(lambda: client.label_images(dataset_id, labels))
    return report.labelled, report.lines


@dataclass(frozen=True, slots=True)
class _Held:
    """A file in memory."""

    file: LocalFile
    sha256: str
    data: bytes


def _read(part: Sequence[LocalFile]) -> tuple[list[_Held], list[Line]]:
    contents: list[_Held] = []
    unreadable: list[Line] = []
    for file in part:
        if file.size > MAX_FILE_BYTES:
            reason = f"{file.size:,} bytes; at most {MAX_FILE_BYTES:,} are sent"
            unreadable.append(Line(file.name, "rejected", "ImageTooLarge", reason))
            continue
        try:
            with open(file.path, "rb", buffering=0) as opened:
                data = opened.readall()
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
            unreadable.append(Line(file.name, "rejected", "Unreadable", reason))
        else:
            contents.append(_Held(file, hashlib.sha256(data).hexdigest(), data))
    return contents, unreadable


@dataclass(frozen=True, slots=True)
class Tar:
    """Named files as a tar archive in pieces; it can be sent again, and is never whole in memory.

    Small images share a piece: what a piece costs on its way would be more than they do.
    """

    files: Sequence[tuple[str, bytes]]

    def __iter__(self) -> Iterator[bytes]:
        """Pieces of about 256 KiB, or of one image."""
        pieces: list[bytes] = []
        size = 0
        for name, data in self.files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            pieces += (info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"), data)
            pieces.append(bytes(-len(data) % BLOCK))
            size += len(data)
            if size >= PIECE_BYTES:
                yield b"".join(pieces)
                pieces, size = [], 0
        yield b"".join((*pieces, bytes(2 * BLOCK)))
