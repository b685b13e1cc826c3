"""The queue against a model of it in plain Python: whatever happens in whatever order, both agree (P1, P2, P4).

Hypothesis drives the verbs; after each step every row must be what the model says, so that no job is lost, in
two places, or changed by one who has no claim to it.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from app.kit.database.file import Database
from app.kit.engine.jobs import claim as claims, enqueue as arrivals, job as jobs, shelf, upkeep
from app.kit.engine.jobs.claim import Rules
from app.kit.engine.jobs.enqueue import NewJob
from app.kit.engine.jobs.job import ClaimedJob, Ending
from app.kit.engine.jobs.schema import STATES, migrations
from app.kit.engine.jobs.upkeep import Ages
from app.kit.errors import QueueFullError

T = TypeVar("T")

RULES = Rules(limits={"mail": 1}, batches={"sale": 3})
AGES = Ages(result_s=1e9, done_s=20, failed_s=40)
MAX_PENDING = 8
TIMEOUT_S = 10.0

UUIDS = st.sampled_from([f"job {n}" for n in range(10)])
TASKS = st.sampled_from(["mail", "sale", "sale", "book"])
INSTANCES = st.sampled_from(["i1", "i2"])
WORKERS = st.sampled_from(["Worker-1", "Worker-2", "Worker-3"])
ENDINGS = st.sampled_from(
    ["done", "failed", "cancelled", "retry", "retry later", "wait", "limited", "alone", "alone"]
)


@dataclass
class Job:
    """A job as the model has it."""

    id: int
    uuid: str
    task: str
    priority: float
    state: str
    run_at: float | None
    attempt: int = 0
    deaths: int = 0
    waits: int = 0
    claim: int = 0
    alone: bool = False
    instance: str | None = None
    worker: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    history: int = 0
    place: int | None = None

    @property
    def turn(self) -> tuple[float, int, int]:
        """Say by what it is sorted among the ready: priority, then place in the line, which is its id at first."""
        return -self.priority, self.id if self.place is None else self.place, self.id

    def move(self, state: str, now: float, run_at: float | None = None) -> None:
        """Come into a state that is not running."""
        self.state, self.run_at = state, run_at
        self.instance = self.worker = None
        self.finished_at = now if state in jobs.ENDED else None


class Model:
    """The whole queue in a dict: what the tables and their verbs are measured against."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.jobs: dict[str, Job] = {}
        self.pauses: dict[str, float | None] = {}
        self.last_number = 0
        """The last id or place that was given: they are one order."""

    def having(self, *states: str, task: str | None = None) -> list[Job]:
        return [job for job in self.jobs.values() if job.state in states and task in (None, job.task)]

    def is_live(self, uuid: str) -> bool:
        return uuid in self.jobs and self.jobs[uuid].state in jobs.LIVE

    def insert(self, id: int, uuid: str, task: str, priority: float, run_at: float | None) -> None:
        if self.is_live(uuid):
            return
        assert id > self.last_number, "ids grow: they are the order of arrival"
        self.last_number = id
        waits = run_at is not None and run_at > self.now
        state = "scheduled" if waits else "ready"
        self.jobs[uuid] = Job(id, uuid, task, priority, state, run_at if waits else None)

    def is_full(self) -> bool:
        return len(self.having("ready", "scheduled")) >= MAX_PENDING

    def claim(self, instance: str, worker: str) -> list[str]:
        chosen = self._choose([job for job in self.having("running") if job.instance == instance])
        for job in chosen:
            job.state, job.instance, job.worker, job.started_at = "running", instance, worker, self.now
            job.claim, job.attempt = job.claim + 1, job.attempt + 1
        return [job.uuid for job in chosen]

    def _choose(self, beside: list[Job]) -> list[Job]:
        barred = self._barred()
        ready = [job for job in self.having("ready") if job.task not in barred and "" not in barred]
        ready.sort(key=lambda job: job.turn)
        if not ready or any(job.deaths >= 2 for job in beside) or (beside and ready[0].deaths >= 2):
            return []
        first = ready[0]
        together = [job for job in ready if job.task == first.task and not job.alone and not job.deaths]
        most = RULES.batches.get(first.task, 1) if first in together else 1
        beside_it = [job for job in together if job is not first][: most - 1]
        return [first, *sorted(beside_it, key=lambda job: job.id)]

    def _barred(self) -> set[str]:
        paused = {task for task, until_at in self.pauses.items() if until_at is None or until_at > self.now}
        calls = {(job.task, job.instance, job.worker) for job in self.having("running")}
        running = Counter(task for task, *_ in calls)
        return paused | {task for task, limit in RULES.limits.items() if running[task] >= limit}

    def finish(self, claimed: ClaimedJob, ending: Ending, place: int | None) -> bool:
        job = self.jobs.get(claimed.uuid)
        if job is None or job.id != claimed.id or job.state != "running" or job.claim != claimed.claim:
            return False
        job.move(ending.state, self.now, ending.run_at)
        if ending.state == "ready":
            self.stand_last([job], place)
        job.attempt, job.waits = (
            job.attempt - ending.waited,
            job.waits + (ending.waited and ending.wait_counts),
        )
        job.alone = job.alone or ending.alone
        job.history += ending.error is not None
        return True

    def stand_last(self, comers: list[Job], place: int | None) -> None:
        """Come back into the line, at the place that the queue has given."""
        assert place is not None
        assert place > self.last_number, "places grow, beyond all that waits"
        self.last_number = place
        for job in comers:
            job.place = place

    def free(self, instance: str, died: bool) -> None:
        for job in self.having("running"):
            if job.instance == instance:
                assert job.started_at is not None
                hung = died and job.started_at + TIMEOUT_S < self.now
                job.move("scheduled" if hung else "ready", self.now, self.now + TIMEOUT_S if hung else None)
                job.attempt, job.deaths, job.history = job.attempt - 1, job.deaths + died, job.history + 1
                if job.deaths >= jobs.MAX_DEATHS:
                    job.move("failed", self.now)

    def redrive(self, uuid: str | None, task: str | None) -> int:
        failed = [job for job in self.having("failed", task=task) if uuid in (None, job.uuid)]
        for job in failed:
            job.move("ready", self.now)
            job.attempt = job.deaths = job.waits = 0
        return len(failed)

    def prune(self) -> None:
        for job in self.having(*jobs.ENDED):
            assert job.finished_at is not None
            if job.finished_at < self.now - (AGES.failed_s if job.state == "failed" else AGES.done_s):
                del self.jobs[job.uuid]


class QueueMachine(RuleBasedStateMachine):
    """Does the same to the queue and to the model."""

    claimed = Bundle("claimed")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.model = Model()
        self.open()

    def open(self) -> None:
        path = Path(self.folder.name) / "queue.db"
        self.database = Database(path, synchronous="NORMAL", migrations=[migrations])

    def teardown(self) -> None:
        assert self.database.read("PRAGMA integrity_check")[0][0] == "ok"
        self.database.close()
        self.folder.cleanup()

    def write(self, work: Callable[[Any], T]) -> T:
        return self.database.write(work)

    def place_of(self, uuid: str) -> int | None:
        rows = self.database.read("SELECT place FROM postroom_jobs WHERE uuid = ?", (uuid,))
        return rows[0]["place"] if rows else None

    # What comes in

    @rule(
        uuid=UUIDS,
        task=TASKS,
        priority=st.sampled_from([-1, 0, 0, 0, 1]),
        delay_s=st.sampled_from([None, None, None, -5, 0, 5]),
    )
    def insert(self, uuid: str, task: str, priority: float, delay_s: float | None) -> None:
        now = self.model.now
        run_at = None if delay_s is None else now + delay_s
        new = NewJob(uuid, task, b"{}", priority, run_at, TIMEOUT_S)
        live = self.model.is_live(uuid)
        if self.model.is_full() and not live:
            with pytest.raises(QueueFullError):
                self.write(lambda c: arrivals.insert(c, [new], now, MAX_PENDING))
            return
        self.write(lambda c: arrivals.insert(c, [new], now, None if live else MAX_PENDING))
        id = self.database.read("SELECT id FROM postroom_jobs WHERE uuid = ?", (uuid,))[0][0]
        self.model.insert(id, uuid, task, priority, run_at)

    # What passes

    @rule(seconds=st.sampled_from([1, 6, 11, 45]))
    def wait(self, seconds: float) -> None:
        self.model.now += seconds

    @rule()
    def promote(self) -> None:
        due = [job for job in self.model.having("scheduled") if (job.run_at or 0) <= self.model.now]
        assert self.write(lambda c: jobs.promote(c, self.model.now)) == len(due)
        for job in due:
            job.move("ready", self.model.now)
        if due:
            self.model.stand_last(due, self.place_of(due[0].uuid))

    @rule()
    def restart(self) -> None:
        self.database.close()
        self.open()

    # Work

    @rule(target=claimed, instance=INSTANCES, worker=WORKERS)
    def claim(self, instance: str, worker: str) -> Any:
        busy = any((job.instance, job.worker) == (instance, worker) for job in self.model.having("running"))
        if busy:  # a worker claims when it has nothing to do
            return multiple()
        now = self.model.now
        row = (instance, 1, 3, "running", 0, now)
        self.write(
            lambda c: c.execute("INSERT OR IGNORE INTO postroom_instances VALUES (?, ?, ?, ?, ?, ?)", row)
        )
        found = self.write(lambda c: claims.claim(c, instance, worker, now, RULES))
        assert [job.uuid for job in found] == self.model.claim(instance, worker)
        return multiple(*found)

    @rule(job=claimed, how=ENDINGS)
    def finish(self, job: ClaimedJob, how: str) -> None:
        now = self.model.now
        ending = {
            "done": Ending("done", result=b"1"),
            "failed": Ending("failed", error="E: e"),
            "cancelled": Ending("cancelled", error="Cancelled: c"),
            "retry": Ending("ready", error="E: e", retries=1),
            "retry later": Ending("scheduled", run_at=now + 5, error="E: e", retries=1, retry_delay=5),
            "wait": Ending("ready", error="RetryTask: w", waited=True),
            "limited": Ending("scheduled", run_at=now + 5, error="E: e", waited=True, wait_counts=False),
            "alone": Ending("ready", error="RetryTask: w", waited=True, alone=True),
        }[how]
        finished = self.write(lambda c: jobs.finish(c, [(job, ending)], now))
        assert finished == [self.model.finish(job, ending, self.place_of(job.uuid))]

    @rule(instance=INSTANCES, stopping=st.sampled_from([False, False, True]))
    def lose_process(self, instance: str, stopping: bool) -> None:
        now = self.model.now
        if stopping:
            sql = "UPDATE postroom_instances SET state = 'stopping' WHERE id = ?"
            self.write(lambda c: c.execute(sql, (instance,)))

        def free(connection: Any) -> None:
            for job in jobs.free(connection, instance, now):
                if job.deaths >= jobs.MAX_DEATHS:
                    jobs.shelve(connection, job.uuid, "ProcessDiedError: three times", now)

        self.write(free)
        self.model.free(instance, died=not stopping)

    # By hand

    @rule(uuid=st.none() | UUIDS, task=st.none() | TASKS)
    def redrive(self, uuid: str | None, task: str | None) -> None:
        now = self.model.now
        redriven = self.write(lambda c: shelf.redrive(c, now, uuid, task))
        assert len(redriven) == self.model.redrive(uuid, task)

    @rule(uuid=UUIDS)
    def cancel(self, uuid: str) -> None:
        waiting = [job for job in self.model.having("ready", "scheduled") if job.uuid == uuid]
        cancelled = self.write(lambda c: shelf.cancel(c, uuid, self.model.now))
        assert (cancelled is not None) == bool(waiting)
        for job in waiting:
            job.move("cancelled", self.model.now)

    @rule(uuid=UUIDS)
    def delete_failed(self, uuid: str) -> None:
        failed = [job.uuid for job in self.model.having("failed") if job.uuid == uuid]
        assert self.write(lambda c: shelf.delete_failed(c, uuid)) == bool(failed)
        for uuid in failed:
            del self.model.jobs[uuid]

    @rule(task=TASKS | st.just(""), seconds=st.none() | st.just(6.0))
    def pause(self, task: str, seconds: float | None) -> None:
        until_at = None if seconds is None else self.model.now + seconds
        self.write(lambda c: shelf.pause(c, task, "a rest", until_at))
        self.model.pauses[task] = until_at

    @rule()
    def resume_all(self) -> None:
        for task in list(self.model.pauses):
            self.write(lambda c, task=task: shelf.resume(c, task))
        self.model.pauses.clear()

    @rule()
    def prune(self) -> None:
        self.write(lambda c: upkeep.prune(c, AGES, self.model.now))
        self.model.prune()

    # What must be so after each step

    @invariant()
    def every_job_is_where_the_model_has_it(self) -> None:
        rows = self.database.read(
            "SELECT id, uuid, task, priority, state, run_at, attempt, deaths, waits, claim, alone, instance,"
            " worker, started_at, finished_at, place,"
            " (SELECT COUNT(*) FROM postroom_attempts WHERE job = postroom_jobs.id) AS history"
            " FROM postroom_jobs"
        )
        found = {row["uuid"]: Job(**(dict(row) | {"alone": bool(row["alone"])})) for row in rows}
        assert found == self.model.jobs

    @invariant()
    def the_counts_are_what_can_be_counted(self) -> None:
        rows = self.database.read("SELECT * FROM postroom_task_counts")
        kept = {(row["task"], state): row[state] for row in rows for state in STATES if row[state]}
        assert kept == Counter((job.task, job.state) for job in self.model.jobs.values())

    @invariant()
    def what_came_in_and_has_not_ended_is_live(self) -> None:
        rows = self.database.read(
            "SELECT task, SUM(enqueued - done - failed - cancelled) AS n FROM postroom_job_minutes GROUP BY task"
        )
        live = Counter(job.task for job in self.model.having(*jobs.LIVE))
        assert {row["task"]: row["n"] for row in rows if row["n"]} == live

    @invariant()
    def no_task_runs_more_often_than_its_limit(self) -> None:
        for task, limit in RULES.limits.items():
            assert len(self.model.having("running", task=task)) <= limit

    @invariant()
    def a_suspect_runs_alone_in_its_instance(self) -> None:
        running = self.model.having("running")
        together = Counter(job.instance for job in running)
        assert all(together[job.instance] == 1 for job in running if job.deaths >= 2)


FEW = settings(max_examples=50, stateful_step_count=50, deadline=None, database=None, print_blob=True)


class TestTheQueueAndItsModelAgree(QueueMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = FEW


@pytest.mark.slow
class TestTheyAgreeHoweverOftenTheyAreCompared(QueueMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(FEW, max_examples=300)
