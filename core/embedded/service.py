"""The whole service on one machine: embedded servers, API, worker and beat under one process."""

from __future__ import annotations

import http.client
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from core.config import Settings, child_environment
from core.db.migrating import upgrade
from core.embedded.commands import (
    api_command,
    api_environment,
    beat_command,
    forget_schedule,
    worker_command,
)
from core.embedded.folder import DataFolder, claimed_folder
from core.embedded.processes import Child, Program, end_leftovers
from core.embedded.servers import with_servers
from core.embedded.supervisor import StopRequested, Supervisor
from core.embedded.valkey import free_port
from core.errors import EmbeddedServerFailed
from core.storage.store import open_store

HEALTHY_SECONDS = 120.0
STEP_SECONDS = 0.2
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


@dataclass(slots=True)
class StopFlag:
    """Whether somebody asked the service to stop.

    Not a threading.Event: its lock is not safe to take in a signal handler.
    """

    requested: bool = False


def run_service(
    settings: Settings, *, tell: Callable[[str], None], ready: Callable[[str], None]
) -> None:
    """Run the service until it is asked to stop by SIGINT, SIGTERM or SIGHUP.

    Args:
        settings: What has no URL is started; port 0 takes a free one.
        tell: Gets one line for each thing that happens.
        ready: Called once with the service's URL when the API answers.

    Raises:
        EmbeddedServerFailed: The port or the folder is taken, or something does not run.
    """
    with _stop_on_signals() as stop, claimed_folder(settings.data_dir) as folder:
        if leftovers := end_leftovers(folder):
            tell(f"ended what an earlier start left running: {', '.join(leftovers)}")
        settings = _with_port(settings)
        supervisor = Supervisor(folder, tell=tell, stop_requested=lambda: stop.requested)
        try:
            with supervisor:
                _start(settings, supervisor, tell=tell)
                ready(base_url(settings))
                _watch(supervisor, stop)
                tell("stopping")
        except StopRequested:
            tell("stopped before it was up")


def base_url(settings: Settings) -> str:
    """Where this machine reaches the API."""
    host = ANY_ADDRESS.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def service_programs(settings: Settings, folder: DataFolder) -> list[Program]:
    """API, worker and beat in the order of their start; they are stopped in the reverse one."""
    environment = child_environment(settings)
    own = api_environment(settings)
    return [
        Program(name="api", command=api_command(settings), environment=own),
        Program(
            name="worker",
            command=worker_command(settings),
            environment=environment,
            # It passes the request on to a running job, which may use up this time.
            grace_seconds=settings.cancel_grace_seconds + 5,
        ),
        Program(name="beat", command=beat_command(settings, folder.run), environment=environment),
    ]


def _start(settings: Settings, supervisor: Supervisor, *, tell: Callable[[str], None]) -> None:
    settings = with_servers(settings, supervisor, tell=tell)
    supervisor.check_stop()
    tell("bringing the database up to date")
    upgrade(settings.sqlalchemy_url)
    open_store(settings.store_url).prepare()
    supervisor.check_stop()
    forget_schedule(supervisor.folder.run)
    tell("starting API and worker")
    programs = service_programs(settings, supervisor.folder)
    children = {program.name: supervisor.start(program) for program in programs}
    supervisor.wait(children["api"], lambda: _healthy(settings), seconds=HEALTHY_SECONDS)
    _check_alive(children)


def _check_alive(children: dict[str, Child]) -> None:
    # The API alone answers, but without a worker no job would ever run.
    for name, child in children.items():
        if (code := child.exit_code()) is not None:
            raise EmbeddedServerFailed(
                f"{name} did not start (exit code {code}): {child.last_line()} "
                f"— more in {child.log}"
            )


def _watch(supervisor: Supervisor, stop: StopFlag) -> None:
    while not stop.requested:
        supervisor.step()
        time.sleep(STEP_SECONDS)


def _healthy(settings: Settings) -> bool:
    host = ANY_ADDRESS.get(settings.host, settings.host)
    connection = http.client.HTTPConnection(host, settings.port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _with_port(settings: Settings) -> Settings:
    if settings.port == 0:
        return settings.model_copy(update={"port": free_port(settings.host)})
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn will
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise EmbeddedServerFailed(
                f"port {settings.port} on {settings.host} cannot be used ({error.strerror}); "
                "choose another one with --port"
            ) from error
    return settings


@contextmanager
def _stop_on_signals() -> Iterator[StopFlag]:
    stop = StopFlag()

    def request(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.requested = True

    names = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup asks to outlive the terminal
        names.append(signal.SIGHUP)
    before = {name: signal.signal(name, request) for name in names}
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
