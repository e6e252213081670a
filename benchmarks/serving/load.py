"""Clients in a process of their own: connections that ask again as soon as they are answered.

HTTP/1.1 with keep-alive, the bytes of the requests made beforehand, nothing parsed but the status
and the length: what a client costs is taken from the server on a machine of few cores. How much
that is stands in the result. Counted is what is answered within the window, whenever it was asked.

Run by `benchmarks.serving`: python -m benchmarks.serving.load '{"port": …}' FILE…
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import uvloop

WARM_UP_SECONDS = 1.0
PATIENCE_SECONDS = 30.0  # for answers that were asked for in the window
EDGE = b"\r\n\r\n"
LENGTH = b"content-length:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """What is asked of whom.

    Attributes:
        port: On 127.0.0.1.
        path: With its query.
        clients: Connections.
        seconds: Counted, after a warm-up.
        each: Images in a request.
        part: The name of the files in a multipart form; None: the body is one raw image.
        fields: What else the form has.
    """

    port: int
    path: str
    clients: int
    seconds: float
    each: int = 1
    part: str | None = None
    fields: dict[str, str] = field(default_factory=dict)

    def words(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


def requests_of(asking: Asking, images: list[bytes]) -> list[bytes]:
    """The bytes of requests with so many images each, all of which occur."""
    chunks = [images[start : start + asking.each] for start in range(0, len(images), asking.each)]
    return [_request(asking, chunk) for chunk in chunks if len(chunk) == asking.each]


def _request(asking: Asking, images: list[bytes]) -> bytes:
    body, kind = images[0], "image/jpeg"
    if asking.part is not None:
        body, kind = _form(asking.part, asking.fields, images)
    head = (
        f"POST {asking.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _form(part: str, fields: dict[str, str], images: list[bytes]) -> tuple[bytes, str]:
    begun = "--edge\r\nContent-Disposition: form-data; name="
    pieces = [f'{begun}"{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    head = f'{begun}"{part}"; filename="i.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'.encode()
    pieces += [head + image + b"\r\n" for image in images]
    return b"".join(pieces) + b"--edge--\r\n", "multipart/form-data; boundary=edge"


class Client(asyncio.Protocol):
    """Asks one after the other; (answered, seconds, status) of each goes to `seen`."""

    def __init__(
        self, requests: list[bytes], first: int, until: float, seen: list[tuple[float, float, int]]
    ) -> None:
        self._requests, self._turn, self._until, self._seen = requests, first, until, seen
        self._got = b""
        self._wanted = 0
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask first."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class
        self._ask()

    def data_received(self, data: bytes) -> None:
        """A piece of an answer; when it is whole, ask again."""
        self._got += data
        if not self._wanted and (end := self._got.find(EDGE)) >= 0:
            head = self._got[:end].lower()
            length = head.partition(LENGTH)[2].partition(b"\r\n")[0] or b"0"
            self._wanted = end + len(EDGE) + int(length)
        if not self._wanted or len(self._got) < self._wanted:
            return
        now = time.perf_counter()
        self._seen.append((now, now - self._begun, int(self._got[9:12])))
        if now < self._until:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """The end, or the server hung up."""
        if error is not None or time.perf_counter() < self._until:
            self._seen.append((time.perf_counter(), 0.0, 0))
        self.over.set_result(None)

    def _ask(self) -> None:
        self._got, self._wanted = b"", 0
        self._begun = time.perf_counter()
        self._transport.write(self._requests[self._turn % len(self._requests)])
        self._turn += 1


async def ask(asking: Asking, requests: list[bytes]) -> dict[str, float]:
    """What so many clients saw after the warm-up: images a second, milliseconds, own cores;
    `images` are those of the warm-up, too."""
    seen: list[tuple[float, float, int]] = []
    loop = asyncio.get_running_loop()
    start = time.perf_counter() + WARM_UP_SECONDS
    end = start + asking.seconds
    used = 0.0

    def note() -> None:
        nonlocal used
        used = time.process_time()

    loop.call_later(WARM_UP_SECONDS, note)
    made = [
        await loop.create_connection(
            lambda number=number: Client(requests, 7 * number, end, seen),  # type: ignore[misc]
            "127.0.0.1",
            asking.port,
        )
        for number in range(asking.clients)
    ]
    async with asyncio.timeout(WARM_UP_SECONDS + asking.seconds + PATIENCE_SECONDS):
        await asyncio.gather(*(client.over for _, client in made))
    spent = time.perf_counter() - start
    within = [(took, status) for at, took, status in seen if start <= at <= end]
    good = sorted(1000 * took for took, status in within if status == 200)
    at = {f"p{p}": round(good[min(len(good) - 1, len(good) * p // 100)], 2) for p in (50, 95, 99)}
    return {
        "per_second": round(asking.each * len(good) / asking.seconds, 1),
        "images": asking.each * len(seen),
        **at,
        "errors": sum(status != 200 for _, _, status in seen),
        "client_cores": round((time.process_time() - used) / spent, 2),
    }


def main() -> None:
    """Ask, print one JSON object."""
    asking = Asking(**json.loads(sys.argv[1]))
    requests = requests_of(asking, [Path(file).read_bytes() for file in sys.argv[2:]])
    print(json.dumps(uvloop.run(ask(asking, requests))))


if __name__ == "__main__":
    main()
