"""The application on a real socket, and a line to it that can be cut."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from fastapi import FastAPI

START_SECONDS = 20.0
PIECE = 65_536


@contextmanager
def listening(app: FastAPI, *, port: int = 0) -> Iterator[int]:
    """The application on a real socket, whose clients can leave; returns the port."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        # The lifespan is that of the client fixture.
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + START_SECONDS
            while not server.started and time.monotonic() < deadline:
                time.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)


class Line:
    """Forwards connections to a port until so many bytes went through; then it is dead."""

    def __init__(self, port: int, *, dies_after: int) -> None:
        self.target = port
        self.left = dies_after
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.open: list[socket.socket] = []
        self.lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.target))
            self.open += [near, far]
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._forward, args=ends, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(PIECE):
                with self.lock:
                    self.left -= len(data)
                    dead = self.left < 0
                if dead:
                    self.cut()
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return  # cut
        finally:
            source.close()

    def cut(self) -> None:
        """End all connections and take no more."""
        self.listener.close()
        for end in self.open:
            with suppress(OSError):  # the other side was first
                end.shutdown(socket.SHUT_RDWR)
