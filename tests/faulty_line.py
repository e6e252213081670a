"""A line between a client and a server that the test makes slow, cuts, or answers itself."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

PIECE = 16 * 1024
OVERLOADED = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/xml\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%s"
)
SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


@dataclass
class Faults:
    """What goes wrong: with the next connections, in this order, and then with none."""

    overloaded: int = 0
    """So many connections get a 503."""
    cut: int = 0
    """So many break after `cut_after` bytes of their answers, or of their requests."""
    cut_after: int = 100_000
    cut_request: bool = False
    pause: float = 0.0
    """Seconds before each piece, of requests and answers."""
    passed: int = 0
    """Bytes that have gone through, both ways."""
    met: int = 0
    """How many connections a fault has met."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> str:
        with self.lock:
            for kind in ("overloaded", "cut"):
                if getattr(self, kind) > 0:
                    setattr(self, kind, getattr(self, kind) - 1)
                    self.met += 1
                    return kind
        return ""


@contextmanager
def faulty_line(port: int) -> Iterator[tuple[int, Faults]]:
    """The port of a line to the server on `port`, and what goes wrong on it."""
    faults = Faults()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        ended = threading.Event()

        def accept() -> None:
            while not ended.is_set():
                with suppress(TimeoutError):
                    client, _ = listener.accept()
                    threading.Thread(target=_serve, args=(client, port, faults)).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1], faults
        finally:
            ended.set()
            thread.join()


def _serve(client: socket.socket, port: int, faults: Faults) -> None:
    fault = faults.take()
    client.settimeout(30)
    with client, suppress(OSError):
        if fault == "overloaded":
            client.recv(PIECE)
            client.sendall(OVERLOADED % (len(SLOW_DOWN), SLOW_DOWN))
            client.shutdown(socket.SHUT_WR)
            while client.recv(PIECE):
                pass  # a reset would take the answer away from the client
            return
        with socket.create_connection(("127.0.0.1", port), timeout=30) as server:
            limit = faults.cut_after if fault == "cut" else None
            up, down = (limit, None) if faults.cut_request else (None, limit)
            request = threading.Thread(target=_copy, args=(client, server, up, faults))
            request.start()
            _copy(server, client, down, faults)
            request.join()


def _copy(source: socket.socket, target: socket.socket, limit: int | None, faults: Faults) -> None:
    """Hand on what comes until one side ends or so many bytes have gone, then end both."""
    left = PIECE if limit is None else limit
    with suppress(OSError):
        while left > 0 and (data := source.recv(min(PIECE, left))):
            time.sleep(faults.pause)
            target.sendall(data)
            faults.passed += len(data)
            left -= len(data) if limit is not None else 0
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
