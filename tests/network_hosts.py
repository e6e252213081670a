"""Hosts that are network namespaces of this machine, joined by cables that a test can cut."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

ADDRESS = "10.211.0.1"  # of the hub; no other namespace of this machine sees it
CONNECT = """
import socket, sys, time
deadline = time.monotonic() + 30
while True:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1).close()
        break
    except OSError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.1)
"""
ASK = """
import json, sys, urllib.request
method, url, key, body = sys.argv[1:]
headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
request = urllib.request.Request(url, body.encode() or None, headers, method=method)
with urllib.request.urlopen(request, timeout=60) as answer:
    print(answer.read().decode())
"""


def why_not() -> str:
    """Why there can be no such hosts here; empty when there can."""
    if not sys.platform.startswith("linux") or shutil.which("ip") is None:
        return "needs Linux and the program ip"
    if os.geteuid() != 0:
        return "needs root: network namespaces are made"
    name = f"probe-{uuid4().hex[:8]}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return ""


@dataclass
class Host:
    """One namespace and the processes that a test has started in it."""

    name: str
    processes: list[tuple[subprocess.Popen[bytes], int]] = field(default_factory=list)

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]

    def start(
        self,
        *words: str,
        log: Path,
        environment: dict[str, str] | None = None,
        stop_signal: int = signal.SIGTERM,
    ) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.command(*words),
                env=environment,
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.processes.append((process, stop_signal))
        return process

    def python(self, code: str, *arguments: str) -> str:
        command = self.command(sys.executable, "-c", code, *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def wait_for_port(self, port: int) -> None:
        """Return when something on this host's own address takes connections."""
        self.python(CONNECT, ADDRESS, str(port))

    def ask(self, method: str, path: str, key: str, /, **body: Any) -> Any:
        """What the API on the hub answers this host."""
        url, sent = f"http://{ADDRESS}:8000{path}", json.dumps(body) if body else ""
        return json.loads(self.python(ASK, method, url, key, sent))

    def end(self) -> None:
        for process, stop_signal in reversed(self.processes):
            process.send_signal(stop_signal)
        for process, _ in reversed(self.processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass(frozen=True)
class Network:
    """A hub with an address, and hosts that reach it by a cable each."""

    hub: Host
    hosts: list[Host]

    def plug(self, host: Host, *, in_it: bool) -> None:
        """Cut or heal the cable at the hub's end: the host's own settings stay as they are."""
        state = "up" if in_it else "down"
        ip("-n", self.hub.name, "link", "set", f"to-{self.hosts.index(host)}", state)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextmanager
def network(hosts: int) -> Iterator[Network]:
    """The hub and so many hosts, without any process; all is gone at the end."""
    mark = uuid4().hex[:6]
    made = Network(Host(f"hub-{mark}"), [Host(f"host-{mark}-{n}") for n in range(hosts)])
    everyone = [made.hub, *made.hosts]
    try:
        for host in everyone:
            ip("netns", "add", host.name)
            ip("-n", host.name, "link", "set", "lo", "up")
        ip("-n", made.hub.name, "address", "add", f"{ADDRESS}/32", "dev", "lo")
        for number, host in enumerate(made.hosts):
            _join(made.hub.name, host.name, number)
        yield made
    finally:
        for host in reversed(everyone):
            host.end()
            subprocess.run(["ip", "netns", "delete", host.name], check=False, capture_output=True)


def _join(hub: str, host: str, number: int) -> None:
    near, far, subnet = f"to-{number}", "uplink", f"10.211.{number + 1}"
    ip("link", "add", near, "netns", hub, "type", "veth", "peer", "name", far, "netns", host)
    for namespace, device, address in ((hub, near, f"{subnet}.1"), (host, far, f"{subnet}.2")):
        ip("-n", namespace, "address", "add", f"{address}/30", "dev", device)
        ip("-n", namespace, "link", "set", device, "up")
    ip("-n", host, "route", "add", "default", "via", f"{subnet}.1")
