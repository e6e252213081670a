"""Decoding in processes of its own: verdicts, limits, deaths, and what such a process is given."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from PIL import Image

from core.errors import DecodersUnavailable, ImageInvalid, ImageTooCostly, ImageTooLarge
from core.images import frames
from core.images.decoding import ImageInfo
from core.images.frames import Answer, Drawing, Verdict
from core.images.pool import DecodeLimits, DecodePool
from tests.unit.images.image_samples import encode, gradient, ihdr, png, read

MB = 2**20
LIMITS = {"max_bytes": 2**24, "max_pixels": 10**8, "seconds": 20.0, "memory_mb": 1024}
GOOD = encode(gradient())
HUGE = png(ihdr(50_000, 50_000, 8, 2), b"")
# Takes about a second and some 400 MB.
COSTLY = encode(Image.new("RGBA", (8000, 6000), "red"), compress_level=1)

Make = Callable[..., DecodePool]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[DecodePool] = []

    def start(processes: int = 1, **changed: float) -> DecodePool:
        limits = DecodeLimits(**{**LIMITS, **changed})  # type: ignore[arg-type]
        made.append(DecodePool(limits, processes=processes))
        return made[-1]

    yield start
    for pool in made:
        pool.close()


def decoders(parent: int | None = None) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(parent).children()
        if "core.images.inspector" in child.cmdline()
    ]


def codes(verdicts: list[Verdict]) -> list[str]:
    return [said.code if isinstance(said, ImageInvalid) else "good" for said in verdicts]


def test_verdicts_are_those_of_decode_in_order(make: Make) -> None:
    kinds = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
    files = [encode(gradient(8 + size, 8), kind) for size in range(20) for kind in kinds]
    verdicts = make(2).inspect([*files, b"text", HUGE])
    assert verdicts[:-2] == [read(data).info for data in files]
    assert codes(verdicts[-2:]) == ["ImageInvalid", "ImageTooLarge"]
    assert str(verdicts[-1]).startswith("50000x50000 = 2,500,000,000 pixels")


def test_processes_start_when_they_are_needed_and_end_with_the_pool(make: Make) -> None:
    pool = make(2)
    assert decoders() == []
    assert pool.inspect([]) == []
    assert decoders() == []
    pool.inspect([GOOD] * 64)
    started = decoders()
    assert 1 <= len(started) <= 2
    pool.inspect([GOOD] * 64)
    assert {child.pid for child in started} <= {child.pid for child in decoders()}
    pool.close()
    assert decoders() == []


def test_time_is_limited_for_each_file(make: Make) -> None:
    begin = time.perf_counter()
    verdicts = make(seconds=0.1).inspect([GOOD, COSTLY, GOOD, COSTLY, GOOD])
    assert codes(verdicts) == ["good", "ImageTooCostly", "good", "ImageTooCostly", "good"]
    assert str(verdicts[1]) == (
        "decoding the image took more than the 0.1 s of processor time allowed"
    )
    assert time.perf_counter() - begin < 10


def test_memory_is_limited(make: Make) -> None:
    verdicts = make(memory_mb=256).inspect([GOOD, COSTLY, GOOD])
    assert codes(verdicts) == ["good", "ImageTooCostly", "good"]
    assert "8000x6000 pixels needs more memory" in str(verdicts[1])


def test_a_process_that_was_killed_is_replaced(make: Make) -> None:
    pool = make()
    pool.inspect([GOOD])
    (child,) = decoders()
    child.kill()
    child.wait()
    assert codes(pool.inspect([GOOD, GOOD])) == ["good", "good"]


def test_a_process_that_something_else_ends_refuses_nothing(make: Make) -> None:
    pool = make()
    pool.inspect([GOOD])
    (child,) = decoders()
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(pool.inspect, [GOOD, COSTLY, GOOD])
        before = sum(child.cpu_times()[:2])
        while sum(child.cpu_times()[:2]) < before + 0.2:  # it is at the costly one
            time.sleep(0.01)
        child.send_signal(signal.SIGSEGV)
        verdicts = asked.result(30)
    assert codes(verdicts) == ["good", "good", "good"]


def test_a_file_that_ends_the_process_alone_is_refused(make: Make) -> None:
    pool = make()
    pool.inspect([GOOD])
    (child,) = decoders()
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(pool.inspect, [COSTLY])
        before = sum(child.cpu_times()[:2])
        while sum(child.cpu_times()[:2]) < before + 0.2:
            time.sleep(0.01)
        child.send_signal(signal.SIGSEGV)
        (verdict,) = asked.result(30)
    assert codes([verdict]) == ["ImageTooCostly"]
    assert "ended the process that did it (SIGSEGV)" in str(verdict)


def test_a_process_that_stands_still_is_given_up(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.images.pool.PATIENCE_SECONDS", 1.6)
    pool = make(seconds=0.1)
    pool.inspect([GOOD])
    (child,) = decoders()
    child.suspend()
    (verdict,) = pool.inspect([GOOD])
    assert codes([verdict]) == ["ImageTooCostly"]
    assert str(verdict) == "decoding the image did not end in 2 s"
    assert not child.is_running()


def test_a_process_has_no_secrets_and_few_rights(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWLABELS_DATABASE_URL", "postgresql://user:secret@host/name")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    make().inspect([GOOD])
    (child,) = decoders()
    assert "secret" not in str(child.environ())
    assert "secret" not in " ".join(child.cmdline())
    assert child.rlimit(psutil.RLIMIT_DATA) == (1024 * MB, 1024 * MB)
    for limit in (psutil.RLIMIT_CORE, psutil.RLIMIT_FSIZE):
        assert child.rlimit(limit) == (0, 0)
    assert child.num_fds() < 10


def test_processes_end_when_the_server_is_killed() -> None:
    code = (
        "import sys, time\n"
        "from core.images.pool import DecodeLimits, DecodePool\n"
        f"pool = DecodePool(DecodeLimits(**{LIMITS!r}), processes=1)\n"
        f"pool.inspect([{GOOD!r}])\n"
        "print('started', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"started\n"
        (child,) = decoders(server.pid)
        server.kill()
    child.wait(10)


def test_a_process_that_does_not_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    limits = DecodeLimits(**LIMITS)  # type: ignore[arg-type]
    with closing(DecodePool(limits, processes=1)) as pool:
        with pytest.raises(DecodersUnavailable, match="ended with 1"):
            pool.inspect([GOOD])
        monkeypatch.setattr("sys.executable", "/nowhere")
        with pytest.raises(DecodersUnavailable, match="cannot be started"):
            pool.inspect([GOOD])
        monkeypatch.undo()
        assert codes(pool.inspect([GOOD])) == ["good"]


def saying(folder: Path, said: str) -> Path:
    """A decoding process that was taken over."""
    program = folder / "python"
    program.write_text(
        f"#!{sys.executable}\n"
        "import socket\n"
        "channel = socket.socket(fileno=0)\n"
        f"channel.sendall({frames.READY!r})\n"
        "channel.recv(100)\n"
        f"channel.sendall({said})\n"
    )
    program.chmod(0o700)
    return program


BABBLE = {
    "without end": 'b"x" * 2**22',
    "something else": "b'[1, 2]' + bytes([10])",
    "too deep": "b'[' * 100_000 + bytes([10])",
    "nothing": 'b""',
}


@pytest.mark.parametrize("said", BABBLE.values(), ids=BABBLE)
def test_a_process_that_was_taken_over_can_only_refuse(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    program = saying(tmp_path, said)
    monkeypatch.setattr("sys.executable", str(program))
    pool = make()
    assert codes(pool.inspect([GOOD])) == ["ImageTooCostly"]
    monkeypatch.undo()
    assert codes(pool.inspect([GOOD])) == ["good"]


def test_many_threads_may_ask(make: Make) -> None:
    pool = make(2)
    with ThreadPoolExecutor(8) as threads:
        asked = [[encode(gradient(8 + n, 8))] * 20 + [b"text"] for n in range(16)]
        answers = list(threads.map(pool.inspect, asked))
    for width, verdicts in enumerate(answers, start=8):
        assert [said.width for said in verdicts if isinstance(said, ImageInfo)] == [width] * 20
        assert codes(verdicts)[-1] == "ImageInvalid"


def test_pictures_are_drawn_within_the_limits(make: Make) -> None:
    pool = make(memory_mb=256)
    with Image.open(io.BytesIO(pool.draw(encode(gradient(90, 30)), side=60))) as drawn:
        assert (drawn.format, drawn.size) == ("WEBP", (60, 20))
    with pytest.raises(ImageTooCostly, match="8000x6000 pixels needs more memory"):
        pool.draw(COSTLY, side=60)
    with pytest.raises(ImageInvalid, match="not a"):
        pool.draw(b"text", side=60)


WRONG = {"a verdict": 'b\'[1, 1, "PNG", "RGB", true]\\n\'', "no picture": "b'[\"R0lG\"]\\n'"}


@pytest.mark.parametrize("said", WRONG.values(), ids=WRONG)
def test_a_picture_that_is_none_is_refused(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr("sys.executable", str(saying(tmp_path, said)))
    with pytest.raises(ImageTooCostly, match="ended the process"):
        make().draw(GOOD, side=60)


VERDICTS: list[Answer] = [
    Drawing(b"RIFF....WEBP"),
    ImageInfo(3, 4, "PNG", "RGB", True),
    ImageInvalid("a\nb"),
    ImageTooLarge("much"),
    ImageTooCostly("dear"),
]


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda verdict: type(verdict).__name__)
def test_verdicts_pass_as_lines(verdict: Answer) -> None:
    line = frames.line_of(verdict)
    assert line.count(b"\n") == 1
    back = frames.answer_of(line)
    assert type(back) is type(verdict)
    assert str(back) == str(verdict)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b'["KeyError", "x"]',
        b'[0, 1, "PNG", "RGB", true]',
        b'[1, 1, "SVG", "RGB", true]',
        b'["1", 1, "PNG", "RGB", true]',
        b"\xff",
    ],
)
def test_a_line_of_another_form_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        frames.answer_of(line)


def test_a_small_image_costs_little(make: Make) -> None:
    """Not a measurement: an order of magnitude below what is seen."""
    pool = make(os.cpu_count() or 1)
    files = [encode(gradient(32, 32))] * 1000
    pool.inspect(files[:64])
    begin = time.perf_counter()
    pool.inspect(files)
    assert time.perf_counter() - begin < 5
