"""Any order of what may happen to jobs, and what holds after each of it, on the real Postgres.

The model knows no SQL: it remembers who was given which job, and so who may still write to it.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import ClassVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import delete, func, select

from core.auth import Caller
from core.db.models import Job, Model, Snapshot
from core.errors import JobAlreadyFinished, JobNotRetryable, LeaseLost
from core.jobs import leases, service, sweeping
from core.jobs.leases import Claim
from core.jobs.service import PlannedJob
from core.jobs.states import ALLOWED, FINISHED, LEASED, RETRYABLE, JobState
from tests.jobs_database import JobsDatabase
from tests.unit.jobs.life_rows import (
    check_rows,
    end_job,
    facts_of,
    failed_for_want_of,
    life_of,
    new_source,
    record_checkpoint,
    report_progress,
    row_of,
    unfinished,
)

MOST_RUNNING = 2
MOST_JOBS = 12  # so that what happens happens to the same ones
DEVICES = ("gpu", "cpu")
PAST = timedelta(minutes=5)
WORKERS = st.sampled_from([DEVICES, ("cpu",), ("gpu",), DEVICES])
PICK = st.integers(0, 10**6)


class JobLife(RuleBasedStateMachine):
    """Two projects, workers of three kinds, and everything that can go wrong between them."""

    database: ClassVar[JobsDatabase]

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[UUID] = []
        self.claims: list[Claim] = []  # every right that was ever given
        self.holder: dict[UUID, Claim] = {}  # who may write now
        self.retries: Counter[UUID] = Counter()
        self.owners: dict[UUID, Caller] = {}
        self.sources: list[tuple[Caller, Snapshot]] = []

    @initialize()
    def begin(self) -> None:
        """An empty queue, and two projects with a dataset each."""
        self.database.queue.sent.clear()
        with self.database.sessions.begin() as session:
            session.execute(delete(Model))
            session.execute(delete(Job))
            for name in ("life one", "life two"):
                self.sources.append(new_source(session, name))
        for project in (0, 0, 1):
            self.create(project, length=2, device="cpu", priority=0, attempts=2, need=1)
            self._take(self.jobs[-2], DEVICES)
        self.take_over(0)

    @precondition(lambda self: len(self.jobs) < MOST_JOBS)
    @rule(
        project=st.integers(0, 1),
        length=st.integers(1, 3),
        device=st.sampled_from(["cpu", "cuda"]),
        priority=st.integers(-1, 1),
        attempts=st.integers(1, 3),
        need=PICK,
    )
    def create(
        self, project: int, length: int, device: str, priority: int, attempts: int, need: int
    ) -> None:
        caller, snapshot = self.sources[project]
        own = [job for job in self.jobs if self.owners[job] == caller]
        needs = own[need % len(own)] if own and need % 3 == 0 else None
        with self.database.sessions.begin() as session:
            if needs is not None and row_of(session, needs).state in RETRYABLE:
                needs = None  # would be refused
            planned = [
                PlannedJob("pretrain", {}, {"device": device}, None if i else needs, priority)
                for i in range(length)
            ]
            made = service.create_jobs(session, caller, snapshot, planned, max_attempts=attempts)
            ids = [job.id for job in made]
        self.jobs += ids
        self.owners |= dict.fromkeys(ids, caller)

    @precondition(lambda self: self.database.queue.sent)
    @rule(number=PICK, devices=WORKERS, again=st.booleans())
    def deliver(self, number: int, devices: tuple[str, ...], again: bool) -> None:
        """A hint arrives, perhaps for a second time, at a worker that has one of the devices."""
        sent = self.database.queue.sent
        hinted = sent[number % len(sent)] if again else sent.pop(number % len(sent))
        self._take(hinted, devices)

    @precondition(lambda self: self.jobs)
    @rule(number=PICK, devices=WORKERS)
    def deliver_what_nobody_sent(self, number: int, devices: tuple[str, ...]) -> None:
        self._take(self.jobs[number % len(self.jobs)], devices)

    @precondition(lambda self: self.database.queue.sent)
    @rule()
    def lose_all_hints(self) -> None:
        self.database.queue.sent.clear()

    @precondition(lambda self: self.claims)
    @rule(number=PICK)
    def heartbeat(self, number: int) -> None:
        held = self._claim(number)
        with self.database.sessions.begin() as session:
            try:
                leases.renew(session, held, lease_seconds=60)
            except LeaseLost:
                assert not self._holds(held)
            else:
                assert self._holds(held)

    @precondition(lambda self: self.holder)
    @rule(number=PICK)
    def fall_silent(self, number: int) -> None:
        held = list(self.holder.values())[number % len(self.holder)]
        self.database.set(held.job_id, lease_expires_at=datetime.now(UTC) - PAST)

    @precondition(lambda self: self.holder)
    @rule(number=PICK)
    def take_over(self, number: int) -> None:
        """A worker is paused for longer than its lease; another one gets the job."""
        job_id = list(self.holder)[number % len(self.holder)]
        self.fall_silent(number)
        self.sweep(known=False)
        self._take(job_id, DEVICES)

    @rule(known=st.booleans())
    def sweep(self, known: bool) -> None:
        """With or without the broker's word that it has lost nothing."""
        waiting = Counter(self.database.queue.devices[job] for job in self.database.queue.sent)
        with self.database.sessions.begin() as session:
            late = select(Job.id).where(
                Job.state.in_(LEASED), Job.lease_expires_at < func.clock_timestamp()
            )
            for job_id in session.scalars(late):
                del self.holder[job_id]
            sweeping.sweep(
                session, hints_waiting=waiting if known else {}, most_running=MOST_RUNNING
            )

    @precondition(lambda self: self.jobs)
    @rule(number=PICK)
    def let_time_pass(self, number: int) -> None:
        """The pause of a job is over, and its hint is old."""
        job_id = self.jobs[number % len(self.jobs)]
        row = self.database.row(job_id)
        long_ago = datetime.now(UTC) - PAST
        self.database.set(
            job_id,
            not_before=row.not_before and long_ago,
            hinted_at=row.hinted_at and long_ago,
        )

    @precondition(lambda self: self.jobs)
    @rule(number=PICK)
    def cancel(self, number: int) -> None:
        job_id = self.jobs[number % len(self.jobs)]
        before = self.database.row(job_id).state
        with self.database.sessions.begin() as session:
            try:
                after = service.cancel_job(session, self.owners[job_id], job_id).state
            except JobAlreadyFinished:
                assert before in FINISHED - {JobState.CANCELLED}
                return
        expected = "cancelling" if before in LEASED else "cancelled"
        assert after == expected

    @precondition(lambda self: self.jobs)
    @rule(number=PICK, from_beginning=st.booleans())
    def retry(self, number: int, from_beginning: bool) -> None:
        job_id = self.jobs[number % len(self.jobs)]
        before = self.database.row(job_id)
        with self.database.sessions.begin() as session:
            woken = failed_for_want_of(session, job_id)
            try:
                service.retry_job(
                    session, self.owners[job_id], job_id, from_beginning=from_beginning
                )
            except JobNotRetryable:
                need = before.needs_id and self.database.row(before.needs_id).state
                assert before.state not in RETRYABLE or need in RETRYABLE
                return
        assert before.state in RETRYABLE
        self.retries.update([job_id, *woken])

    @precondition(lambda self: self.claims)
    @rule(number=PICK, how=st.sampled_from(["succeed", "fail", "crash", "oom", "back", "away"]))
    def end(self, number: int, how: str) -> None:
        """Whoever was ever given a job tries to end it; only its holder can."""
        held = self._claim(number)
        with self.database.sessions.begin() as session:
            before = facts_of(session, held.job_id)
            lost = not end_job(session, self.owners[held.job_id], held, how)
        if not self._holds(held):
            assert lost or how not in {"succeed", "fail"}
            with self.database.sessions.begin() as session:
                assert facts_of(session, held.job_id) == before, "a late writer changed something"
        elif self.database.row(held.job_id).state not in LEASED:
            del self.holder[held.job_id]

    @precondition(lambda self: self.claims)
    @rule(number=PICK, step=st.integers(0, 50))
    def report(self, number: int, step: int) -> None:
        """Progress and a checkpoint, from any who was ever given the job."""
        held = self._claim(number)
        for write in (report_progress, record_checkpoint):
            try:
                with self.database.sessions.begin() as session:
                    write(session, held, step)
            except LeaseLost:
                assert not self._holds(held)
            else:
                assert self._holds(held)

    @invariant()
    def what_always_holds(self) -> None:
        with self.database.sessions.begin() as session:
            rows = check_rows(session, self.holder)
        busy = Counter(row.project_id for row in rows if row.state in LEASED)
        assert all(count <= MOST_RUNNING for count in busy.values())

    def teardown(self) -> None:
        """Let everything end: nothing is forgotten, and each job's life was one that there is."""
        if not self.sources:
            return
        for _ in range(10 * len(self.jobs) + 10):
            if not self._unfinished():
                break
            self._work_off()
        assert self._unfinished() == [], "these jobs would never end"
        self.what_always_holds()
        with self.database.sessions.begin() as session:
            for job_id in self.jobs:
                life = life_of(session, job_id)
                assert all(after in ALLOWED[before] for before, after in pairwise(life))
                ends = sum(state in FINISHED for state in life)
                assert ends == 1 + self.retries[job_id], "ended exactly once"

    def _work_off(self) -> None:
        for held in list(self.holder.values()):
            with self.database.sessions.begin() as session:
                done = end_job(session, self.owners[held.job_id], held, "succeed")
            if not done:  # it is being cancelled
                with self.database.sessions.begin() as session:
                    assert service.confirm_cancelled(session, held.job_id, held.token)
            del self.holder[held.job_id]
        for number in range(len(self.jobs)):
            self.let_time_pass(number)
        self.sweep(known=True)
        hints, self.database.queue.sent = self.database.queue.sent, []
        for hinted in hints:
            self._take(hinted, DEVICES)

    def _unfinished(self) -> list[UUID]:
        with self.database.sessions.begin() as session:
            return unfinished(session)

    def _take(self, hinted: UUID, devices: tuple[str, ...]) -> None:
        with self.database.sessions.begin() as session:
            held = leases.claim_next(
                session,
                hinted,
                devices=devices,
                worker="w",
                lease_seconds=60,
                most_running=MOST_RUNNING,
            )
        if held is None:
            return
        assert held.job_id not in self.holder, "given to two"
        assert self.database.row(held.job_id).device in devices
        earlier = [claim.token for claim in self.claims if claim.job_id == held.job_id]
        assert held.token > max(earlier, default=0)
        self.claims.append(held)
        self.holder[held.job_id] = held

    def _claim(self, number: int) -> Claim:
        """One of all that were ever given; often one that is past, of a job that runs again."""
        running = [held for held in self.claims if held.job_id in self.holder]
        past = [held for held in running if not self._holds(held)]
        kinds = (past or self.claims, running or self.claims, self.claims)
        among = kinds[number % len(kinds)]
        return among[number // len(kinds) % len(among)]

    def _holds(self, held: Claim) -> bool:
        return self.holder.get(held.job_id) == held
