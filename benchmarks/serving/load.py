"""Clients in a process of their own: connections that ask again as soon as they are answered.

HTTP/1.1 with keep-alive, the bytes of the requests made beforehand, nothing parsed but the status
and the length: what a client costs is taken from the server on a machine of few cores.

Run by `benchmarks.serving`: python -m benchmarks.serving.load PORT PATH CLIENTS SECONDS FILE…
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import uvloop

WARM_UP_SECONDS = 1.0


def request_of(path: str, body: bytes, kind: str) -> bytes:
    """The bytes of one request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def form_of(body: bytes) -> tuple[bytes, str]:
    """A multipart form with one file, `request`, and its content type."""
    head = 'Content-Disposition: form-data; name="request"; filename="i.jpg"'
    part = f"--edge\r\n{head}\r\nContent-Type: image/jpeg\r\n\r\n".encode()
    return part + body + b"\r\n--edge--\r\n", "multipart/form-data; boundary=edge"


async def client(
    port: int, requests: list[bytes], first: int, until: float, seen: list[tuple[float, float, int]]
) -> None:
    """Ask one after the other until it is time; (begun, seconds, status) of each goes to `seen`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    turn = first
    while (began := time.perf_counter()) < until:
        writer.write(requests[turn % len(requests)])
        turn += 1
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        [length] = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
        await reader.readexactly(length)
        seen.append((began, time.perf_counter() - began, int(head[9:12])))
    writer.close()


async def ask(port: int, requests: list[bytes], clients: int, seconds: float) -> dict[str, object]:
    """What so many clients saw, the first second left out."""
    seen: list[tuple[float, float, int]] = []
    start = time.perf_counter()
    until = start + WARM_UP_SECONDS + seconds
    work = [client(port, requests, 7 * number, until, seen) for number in range(clients)]
    await asyncio.gather(*work)
    kept = [(took, status) for begun, took, status in seen if begun - start >= WARM_UP_SECONDS]
    good = sorted(1000 * took for took, status in kept if status == 200)
    spent = time.perf_counter() - start - WARM_UP_SECONDS
    bad = [status for _, _, status in seen if status != 200]
    at = {f"p{p}": round(good[min(len(good) - 1, len(good) * p // 100)], 2) for p in (50, 95, 99)}
    return {"per_second": round(len(good) / spent, 1), **at, "errors": len(bad)}


def main() -> None:
    """Ask, print one JSON object."""
    port, path, clients, seconds, kind, *files = sys.argv[1:]
    bodies = [Path(file).read_bytes() for file in files]
    pairs = [form_of(body) if kind == "form" else (body, kind) for body in bodies]
    requests = [request_of(path, body, content_type) for body, content_type in pairs]
    print(json.dumps(uvloop.run(ask(int(port), requests, int(clients), float(seconds)))))


if __name__ == "__main__":
    main()
