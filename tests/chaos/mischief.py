"""What goes wrong, by a seed: processes are killed, stopped, restarted and disconnected."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

import psutil
import redis
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from tests.chaos.orders import Client
from tests.chaos.stack import WORKERS, Stack

SERVERS = ("postgres", "valkey", "s3")
RESTARTED = ("api", "beat", *WORKERS)


class Mischief:
    """One thing after the other; what it has done is counted."""

    def __init__(
        self, stack: Stack, client: Client, seed: int, *, script: Sequence[str] = ()
    ) -> None:
        """Begin with the deeds of the script, as `step` calls them, and go on at random."""
        self._script = list(script)
        self.done: Counter[str] = Counter()
        self._stack = stack
        self._client = client
        self._random = random.Random(seed)
        self._asleep: list[threading.Timer] = []

    @property
    def kills(self) -> int:
        """Processes that were ended with SIGKILL."""
        return sum(count for name, count in self.done.items() if name.startswith("kill"))

    def has_plans(self) -> bool:
        """Whether the script is not done yet."""
        return bool(self._script)

    def step(self) -> str:
        """Do one thing; what it was."""
        deeds: dict[Callable[[], str], int] = {
            self._kill_job: 6,
            self._kill_worker: 4,
            self._kill_server: 3,
            self._kill_front: 2,
            self._stop_one: 4,
            self._restart: 3,
            self._disconnect: 4,
            self._flush_broker: 1,
            self._cancel: 2,
            self._retry: 2,
        }
        if self._script:
            said = self._named(self._script.pop(0))
        else:
            said = self._random.choices(list(deeds), list(deeds.values()))[0]()
        self.done[said] += 1
        return said

    def end(self) -> None:
        """Nothing is stopped any more."""
        for timer in self._asleep:
            timer.join()

    def _named(self, wanted: str) -> str:
        what, name = wanted.split()
        if wanted == "kill job":
            return self._kill_job()
        if what == "stop":
            return self._stop(name)
        return self._signal(what, name, signal.SIGKILL if what == "kill" else signal.SIGTERM)

    def _kill_job(self) -> str:
        running = self._stack.job_processes()
        if not running:
            return "nothing"
        _send(self._random.choice(running), signal.SIGKILL)
        return "kill job"

    def _kill_worker(self) -> str:
        return self._signal("kill", self._random.choice(WORKERS), signal.SIGKILL)

    def _kill_server(self) -> str:
        return self._signal("kill", self._random.choice(SERVERS), signal.SIGKILL)

    def _kill_front(self) -> str:
        return self._signal("kill", self._random.choice(("api", "beat")), signal.SIGKILL)

    def _restart(self) -> str:
        return self._signal("restart", self._random.choice(RESTARTED), signal.SIGTERM)

    def _signal(self, what: str, name: str, number: signal.Signals) -> str:
        process = self._stack.process(name)
        if process is None:
            return "nothing"
        _send(process, number)
        return f"{what} {name}"

    def _stop_one(self) -> str:
        return self._stop(self._random.choice(("job", *WORKERS, *SERVERS, "api")))

    def _stop(self, name: str) -> str:
        """For shorter or longer than a lease; of a worker with or without its job."""
        lease = self._stack.settings.lease_seconds
        longest = 2 * lease if name in {"job", *WORKERS} else lease
        seconds = self._random.uniform(0.5, longest)
        if name == "job":
            family = self._stack.job_processes()[:1]
        else:
            process = self._stack.process(name)
            family = [process] if process else []
            if process and (name == "postgres" or self._random.random() < 0.5):
                with suppress(psutil.NoSuchProcess):
                    family += process.children(recursive=True)
        if not family:
            return "nothing"
        for process in family:
            _send(process, signal.SIGSTOP)
        timer = threading.Timer(seconds, _wake, [family])
        timer.start()
        self._asleep.append(timer)
        return f"stop {name}"

    def _disconnect(self) -> str:
        """The lines to a server are cut; it runs on."""
        if self._random.random() < 0.5:
            return self._cut_database()
        with suppress(redis.RedisError), self._broker() as broker:
            broker.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            broker.execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
        return "disconnect valkey"

    def _cut_database(self) -> str:
        ends = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            "AND datname = current_database() AND random() < 0.7"
        )
        with suppress(SQLAlchemyError), self._stack.sessions.begin() as session:
            session.execute(text("SET LOCAL statement_timeout = '3s'"))
            session.execute(text(ends))
        return "disconnect postgres"

    def _flush_broker(self) -> str:
        with suppress(redis.RedisError), self._broker() as broker:
            broker.flushall()
        return "flush valkey"

    def _broker(self) -> redis.Redis:
        url = self._stack.settings.broker_url
        assert url is not None
        return redis.Redis.from_url(
            url.get_secret_value(), socket_timeout=3, socket_connect_timeout=3
        )

    def _cancel(self) -> str:
        ordered = [one for one in self._client.ordered if not one.cancelled]
        if not ordered:
            return "nothing"
        self._client.cancel(self._random.choice(ordered[-12:]))
        return "cancel"

    def _retry(self) -> str:
        ended = [one for one in self._client.ordered if one.cancelled]
        if not ended:
            return "nothing"
        self._client.retry(self._random.choice(ended))
        return "retry"


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _wake(family: list[psutil.Process]) -> None:
    for process in reversed(family):
        _send(process, signal.SIGCONT)
