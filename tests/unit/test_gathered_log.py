"""Lines are written together, warnings at once, and none is lost at the end."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator

import pytest

from core.gathered_log import GatheredLines, gathered

LIMIT = 20.0


class Counted(io.StringIO):
    """Text, and how often it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.written = threading.Event()

    def write(self, text: str, /) -> int:
        self.writes += 1
        self.written.set()
        return super().write(text)


@pytest.fixture
def stream() -> Counted:
    return Counted()


@pytest.fixture
def log(stream: Counted) -> Iterator[logging.Logger]:
    """A logger whose lines are gathered, apart from all others."""
    handler = GatheredLines(stream)
    logger = logging.Logger("gathered", logging.DEBUG)
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_lines_are_written_by_themselves(log: logging.Logger, stream: Counted) -> None:
    log.info("one")
    assert stream.written.wait(LIMIT)
    assert stream.getvalue() == "one\n"


def test_a_warning_is_written_at_once_after_what_was_said_before(
    log: logging.Logger, stream: Counted
) -> None:
    for number in range(100):
        log.info("line %d", number)
    log.warning("hot")
    assert stream.getvalue() == "".join(f"line {n}\n" for n in range(100)) + "hot\n"
    assert stream.writes < 100


def test_lines_of_many_threads_are_all_there_at_the_end(stream: Counted) -> None:
    handler = GatheredLines(stream)
    log = logging.Logger("gathered", logging.DEBUG)
    log.addHandler(handler)

    def say(name: int) -> None:
        for number in range(200):
            log.info("%d %d", name, number)

    threads = [threading.Thread(target=say, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.close()
    lines = stream.getvalue().splitlines()
    for name in range(4):
        assert [line for line in lines if line.startswith(f"{name} ")] == [
            f"{name} {number}" for number in range(200)
        ]
    log.info("late")
    assert stream.getvalue().endswith("late\n")


def test_a_line_that_cannot_be_rendered_stops_nobody(
    log: logging.Logger, stream: Counted, capsys: pytest.CaptureFixture[str]
) -> None:
    log.info("%d", "x")
    log.error("after")
    assert stream.getvalue() == "after\n"
    assert "Logging error" in capsys.readouterr().err


def test_the_root_handler_comes_back(monkeypatch: pytest.MonkeyPatch, stream: Counted) -> None:
    plain = logging.StreamHandler(stream)
    plain.setFormatter(logging.Formatter("said %(message)s"))
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [plain])
    with gathered():
        assert isinstance(root.handlers[0], GatheredLines)
        root.handlers[0].handle(logging.makeLogRecord({"msg": "within", "levelno": logging.INFO}))
    assert root.handlers == [plain]
    assert stream.getvalue() == "said within\n"
