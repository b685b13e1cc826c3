"""Huey's API over the durable queue: what is enqueued is a row, what ends a job is one commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any

from huey import Huey, signals

from app.kit.database.file import Database
from app.kit.database.transaction import current_task
from app.kit.engine.api import announcing, sharing, signatures
from app.kit.engine.api.options import OF_BATCH_TASKS, OF_PERIODIC_TASKS, OF_TASKS, check, check_call
from app.kit.engine.api.results import Handle, Results, named
from app.kit.engine.api.storage import ImmediateStorage, SqlStorage
from app.kit.engine.api.wrapper import DEFAULT_TIMEOUT_S, DurableTask
from app.kit.engine.body.batch import call_with, item_of
from app.kit.engine.body.processes import BodyProcesses, Make
from app.kit.engine.codec import JsonSerializer
from app.kit.engine.jobs import claim as claims, cron, enqueue as arrivals, job as jobs, queries, shelf
from app.kit.engine.jobs.bells import Bell, EndCalls, ReadyBell
from app.kit.engine.jobs.keys import StoredLocks, WindowedRateLimit
from app.kit.engine.jobs.schema import migrations
from app.kit.engine.jobs.upkeep import Ages
from app.kit.engine.operate.control import OperatedHuey
from app.kit.host.clock import clock
from app.settings import Settings


class DurableHuey(OperatedHuey):
    """A Huey whose queue is a table of the app's database."""

    migrations = migrations
    migrations.when_restored.append(shelf.hold_restored)

    def __init__(self, name: str = "postroom", clock: Callable[[], float] = clock, **options: Any) -> None:
        self.now = clock
        self.max_pending_jobs = 100_000
        self._hang_bells()
        self.has_siblings = False
        self.consumer_pid: int | None = None
        """The process in which a consumer was started, until it stops: a fork of it has none."""
        self._next_fires = cron.NextFires()
        super().__init__(name, store_none=True, serializer=JsonSerializer(), **options)
        self._locks = StoredLocks(self)

    def attach(
        self,
        database: Database,
        settings: Settings,
        context: Callable[[], AbstractContextManager[Any]],
        make_in_child: Make | None = None,
    ) -> Database:
        """Say which database holds the queue and in which context bodies run; return the database that is used.

        The last app made wins, but jobs that run here already keep their context, their bells and their settings.
        `make_in_child`, a function of a module, makes this queue again in a process that runs bodies.
        Raises: ConfigurationError when jobs of another file run in this process.
        """
        database, keeps = sharing.settle(self, database)
        if keeps:
            return database
        self.body_processes.end_unused(0)
        self.body_processes = BodyProcesses(self, make_in_child, settings)
        self._database, self._context = database, context
        self.max_pending_jobs, self.max_job_bytes = settings.max_pending_jobs, settings.max_job_bytes
        self.ages = Ages(settings.result_ttl_s, settings.done_ttl_s, settings.failed_ttl_s)
        self._hang_bells()
        return database

    def _hang_bells(self) -> None:
        self.ready_bell, self.end_calls = ReadyBell(), EndCalls()
        self.clock_bell, self.idle_bell = Bell(), Bell()

    # What Huey asks its subclasses for

    def get_storage(self, **options: Any) -> SqlStorage:
        """Make the storage over the database."""
        return SqlStorage(self.name, self)

    def get_immediate_storage(self) -> ImmediateStorage:
        """Make the storage of immediate mode."""
        return ImmediateStorage(self.name, self)

    def get_task_wrapper_class(self) -> type[DurableTask]:
        """Name the wrapper that @task makes."""
        return DurableTask

    def create_consumer(self, **options: Any) -> Any:
        """Make the consumer that runs inside this process."""
        from app.kit.engine.consumer.consumer import EmbeddedConsumer

        return EmbeddedConsumer(self, **options)

    def task(self, *, timeout: float | None = DEFAULT_TIMEOUT_S, **options: Any) -> Any:
        """Make a function a task.

        Beside Huey's options: `max_delay` (caps the back-off), `jitter` (spreads it), `retry_on` and
        `give_up_on` (tuples of exceptions), `limit` (so many at once), `if_not_done(connection, uuid, state,
        reason)` and `if_redriven(connection, uuid)`, which write what follows from it in the job's own commit.
        With `process=True` the body runs in a child process: however much it computes, pages stay fast, and a
        body that runs longer than `timeout` is killed. One process stands ready, and takes some 50 MB. The
        function stands at the top of its module.
        Units: retry_delay, max_delay, timeout in seconds.
        Raises: ConfigurationError for an option that is none, or has a value that will not do.
        """
        options_given = {"timeout": timeout, **options}
        check("task", options_given, OF_TASKS)
        return super().task(**options_given)

    def periodic_task(
        self, validate_datetime: Any, *, timeout: float | None = DEFAULT_TIMEOUT_S, **options: Any
    ) -> Any:
        """Make a function a task that fires by the clock; with `pile_up=False` not while a run of it is live.

        Raises: ConfigurationError, as `task` does.
        """
        options_given = {"validate_datetime": validate_datetime, "timeout": timeout, **options}
        check("periodic_task", options_given, OF_PERIODIC_TASKS)
        return super().periodic_task(**options_given)

    def batch_task(self, *, every_s: float, max_jobs: int = 500, **options: Any) -> Any:
        """Make a function a batch task: it is called every few seconds, with the list of what was enqueued.

        An entry is the job's argument, or the tuple of its arguments. A call that raises is made again for
        each job alone, so that only the bad one fails.
        Raises: ConfigurationError, as `task` does; with `process=True` and `context=True` too.
        """
        check("batch_task", {"every_s": every_s, "max_jobs": max_jobs, **options}, OF_BATCH_TASKS)
        options = {"timeout": DEFAULT_TIMEOUT_S} | options

        def decorate(func: Callable[[list[Any]], Any]) -> Any:
            @wraps(func)
            def alone(*args: Any) -> None:
                call_with(func, [item_of(args)])

            body = {"batch_every_s": every_s, "batch_max": max_jobs, "batch_body": staticmethod(func)}
            return super(DurableHuey, self).task(**body, **options)(alone)

        return decorate

    def rate_limit(self, name: str, limit: int, per: int, retry: bool = True) -> WindowedRateLimit:
        """Make a rate limit: `limit` calls in each window of `per` seconds."""
        return WindowedRateLimit(self, name, limit, per, retry=retry)

    # Enqueue

    def enqueue(self, task: Any) -> Any:
        """Accept a task, group or chord: durable when this returns, or when the transaction around it commits.

        Raises: PayloadError, JobTooLargeError, InvalidInputError, QueueFullError; then nothing was accepted.
        """
        outcome = self._notes()
        if isinstance(task, signatures.FLOWS):
            with self.bulk():
                return named(super().enqueue(signatures.unshared(task)))
        if outcome is None:  # else it came with the job that it follows, and was checked with it
            task = signatures.unshared(task, self.running_job)
            check_call(task)
        if self._immediate:
            return self._enqueue_immediately(task)
        new_job = self._new_job(task)
        if outcome is not None:
            outcome.follow_ups.append(new_job)
            outcome.announced.append(task)
        else:
            announcing.arrival(self, task, new_job.run_at)
            if (gathered := self._gathered()) is None:
                self._insert([new_job])
            else:
                gathered.append(new_job)
        return self._results_of(task)

    def _results_of(self, task: Any) -> Any:
        """Return the handle of a task's result; of a pipeline's, those of its steps; None with results=False."""
        if not self.results:
            return None
        handles = self._pipeline_results(task)
        return Results(handles) if len(handles) > 1 else handles[0]

    @contextmanager
    def bulk(self) -> Iterator[None]:
        """Gather what is enqueued in the block; insert it in one transaction at the end, all or nothing."""
        if self._immediate or self._here.gathered is not None or self._notes() is not None:
            yield
            return
        gathered: list[arrivals.NewJob] = []
        self._here.gathered, self._here.gatherer = gathered, current_task()
        self._here.gathers_in_transaction = self.database.in_transaction
        try:
            yield
        finally:
            self._here.gathered = None
        if gathered:
            self._insert(gathered)

    def _gathered(self) -> list[arrivals.NewJob] | None:
        """Return what is gathered here and now.

        A transaction opened since the gathering began takes its jobs with it, or loses them with it; and another
        coroutine's are not this one's.
        """
        here = self._here
        is_same = here.gathered is not None and here.gathers_in_transaction == self.database.in_transaction
        return here.gathered if is_same and here.gatherer in (None, current_task()) else None

    def _pipeline_results(self, task: Any) -> list[Handle]:
        return [Handle(self, result.task) for result in super()._pipeline_results(task)]

    def _enqueue_immediately(self, task: Any) -> Any:
        # Through encode and decode, so that a test sees what the queue would refuse.
        task = self.deserialize_task(self._new_job(task).payload)
        self.database.after_commit(lambda: Huey.enqueue(self, task) and None)
        return self._results_of(task)

    def _insert(self, new_jobs: list[arrivals.NewJob]) -> None:
        now = self.now()
        # Who commits at once and finds a worker waiting claims for it in the same commit, and hands it the job.
        commits, any_ready = not self.database.in_transaction, any(job.run_at is None for job in new_jobs)
        seat = self.ready_bell.take_seat() if commits and any_ready else None
        claimed: list[jobs.ClaimedJob] = []

        def insert(connection: sqlite3.Connection) -> list[jobs.ClaimedJob]:
            arrivals.insert(connection, new_jobs, now, self.max_pending_jobs)
            return [] if seat is None else claims.claim(connection, *seat.who, now, self.rules())

        try:
            claimed = self.database.write(insert)
        finally:
            if seat is not None:
                seat.give(claimed)
        self._tell_start(claimed)
        handed = {job.uuid for job in claimed}
        left = [job for job in new_jobs if job.uuid not in handed]
        self.database.after_commit(lambda: self._ring(left, now))

    def _ring(self, new_jobs: list[arrivals.NewJob], now: float) -> None:
        scheduled = sum(job.run_at is not None and job.run_at > now for job in new_jobs)
        if scheduled:
            self.clock_bell.ring()
        if scheduled < len(new_jobs):
            self.ready_bell.ring(len(new_jobs) - scheduled)

    def heed_the_file(self) -> None:
        """Have the clock compare itself with the newest moment in the file."""
        heed = getattr(self.now, "heed", None)
        if heed is not None:
            heed(self.database.read(queries.NEWEST)[0][0])

    # Cron

    @property
    def has_periodic_tasks(self) -> bool:
        """Say whether any task fires by the clock."""
        return bool(self._registry._periodic_tasks)

    def periodic_tasks(self) -> list[Any]:
        """Return a new task of every periodic kind."""
        return list(self._registry.periodic_tasks)

    def last_cron_run(self, task: Any, minute: int) -> int:
        """Return the last minute (unix seconds // 60) a periodic task fired at; a new one's first is this one."""
        name = self._registry.task_to_string(type(task))
        row = self.database.read_one(queries.LAST_CRON_RUN, (name, minute))
        if row is not None and row[0] is not None:
            return int(row[0])
        # Noted, so that it is caught up from now on, even if it never ran before the process stopped.
        self.database.write(lambda connection: cron.add_cron_run(connection, name, minute - 1))
        return minute - 1

    def enqueue_cron(self, task: Any, minute: int) -> bool:
        """Enqueue a periodic task for a minute (unix seconds // 60), once among all processes."""
        new_job, now = self._new_job(task), self.now()

        def fire(connection: sqlite3.Connection) -> bool:
            if not cron.add_cron_run(connection, new_job.task, minute, present=int(self.now() // 60)):
                return False
            if not getattr(task, "pile_up", True) and jobs.is_live(connection, new_job.task):
                return False  # the run before this one is still at it
            arrivals.insert(connection, [new_job], now)
            return True

        fired = self.database.write(fire)
        if fired:
            self._ring([new_job], now)
            announcing.fired(self, [task])
        return fired

    def add_schedule(self, task: Any) -> None:
        """Enqueue a task for its `eta`."""
        if self._immediate:
            super().add_schedule(task)
            return
        self._insert([self._new_job(task)])
        self._emit(signals.SIGNAL_SCHEDULED, task)
