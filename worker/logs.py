"""Brings what a job's process writes to where its owner can read it."""

from __future__ import annotations

import json
import math
import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy.orm import Session, sessionmaker

from core.config import Settings
from core.errors import LeaseLost
from core.jobs.leases import Claim
from core.jobs.logs import Line, write_lines
from core.jobs.outages import DATABASE_AWAY
from core.telemetry import carried, logger
from worker.redaction import Redaction

log = logger(__name__)
SHIP_SECONDS = 1.0
PIECE_BYTES = 256 * 1024  # in one batch
BEHIND_BYTES = 4 * 2**20  # a process that writes faster than this loses lines here, not in its file
LONGEST = 4000
ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
# Of a structured line: what has a place of its own, or says nothing to the job's owner.
OWN_PLACES = ("event", "level", "timestamp", "job_id", "project_id", "request_id", "trace_id")


class LogShipper:
    """Reads the log file behind where it was, in a thread of its own, in batches.

    The file has everything; what cannot be brought in time is missed only in the database.
    """

    def __init__(
        self, held: Claim, path: Path, sessions: sessionmaker[Session], settings: Settings
    ) -> None:
        self._held = held
        self._path = path
        self._sessions = sessions
        self._most = settings.max_job_log_lines
        self._redact = Redaction(settings)
        self._position = path.stat().st_size if path.exists() else 0
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=carried(self._ship), name="job log", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()

    def bring_rest(self) -> None:
        """Bring what is left of a process that has ended; once, so that nothing waits for it."""
        self._done.set()
        try:
            while self._bring(last=True):
                pass
        except (LeaseLost, *DATABASE_AWAY) as error:
            log.warning("the last log lines were not brought", error=str(error))

    def _ship(self) -> None:
        while not self._done.wait(SHIP_SECONDS):
            try:
                self._bring(last=False)
            except LeaseLost:
                return
            except DATABASE_AWAY as error:
                log.warning("log lines were not brought; trying again", error=str(error))

    def _bring(self, *, last: bool) -> bool:
        """Bring one batch; whether there was one."""
        with self._lock:
            lines, position = self._next_lines(last=last)
            if lines:
                with self._sessions.begin() as session:
                    write_lines(session, self._held, lines, most=self._most)
            moved, self._position = position > self._position, position
            return moved

    def _next_lines(self, *, last: bool) -> tuple[list[Line], int]:
        position, lines = self._position, []
        with self._path.open("rb") as file:
            size = file.seek(0, 2)
            if size - position > BEHIND_BYTES:
                left_out = size - BEHIND_BYTES - position
                text = f"{left_out:,} bytes are left out here; the log file on the worker has them"
                lines.append(Line(datetime.now(UTC), text, "warning"))
                position += left_out
            file.seek(position)
            data = file.read(PIECE_BYTES)
        whole = data.rfind(b"\n") + 1
        if whole == 0 and (last or len(data) == PIECE_BYTES):
            whole = len(data)  # a line without an end
        texts = data[:whole].decode(errors="replace").splitlines()
        lines += [line for text in texts if (line := self._parsed(text)) is not None]
        return lines, position + whole

    def _parsed(self, raw: str) -> Line | None:
        text = ESCAPES.sub("", raw).replace("\x00", "").rstrip()
        if not text:
            return None
        now = datetime.now(UTC)
        try:
            found = json.loads(text) if text.startswith("{") else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("event"), str):
            return Line(now, self._shown(text))
        level = found.get("level")
        fields = {k: self._clean(v) for k, v in found.items() if k not in OWN_PLACES}
        return Line(
            _moment(found.get("timestamp")) or now,
            self._shown(found["event"]),
            level if isinstance(level, str) else None,
            fields,
        )

    def _shown(self, text: str) -> str:
        text = self._redact(text.replace("\x00", ""))
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"

    def _clean(self, value: Any) -> Any:
        # A number is no secret; anything with parts is shown as its text.
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        return self._shown(value if isinstance(value, str) else json.dumps(value))


def _moment(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None
