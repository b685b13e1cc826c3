"""What people and pages ask of the queue: redrive, cancel, pause; one job, all of it, what ails it; to wait."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from app.kit.engine.api.results import Awaited
from app.kit.engine.careful_log import careful
from app.kit.engine.consumer.run import RunningHuey
from app.kit.engine.error_words import words_of
from app.kit.engine.jobs import job as jobs, queries, shelf
from app.kit.engine.operate import overview, stats
from app.kit.engine.times import naive_utc
from app.kit.errors import DeadlockError

log = careful("postroom.queue")

SIBLING_LOOK_S = 0.025
"""How often to look for other processes' commits while there are any."""
ALONE_LOOK_S = 1.0


class OperatedHuey(RunningHuey):
    """The side of the queue that its operator uses."""

    consumer_troubles: Callable[[], list[str]] = staticmethod(list)
    """What ails the consumer of this process, if one runs."""

    # By hand

    def redrive(self, uuid: str | None = None, task: str | None = None) -> int:
        """Run failed jobs again: one by its uuid, all of a task by its name, or all; return how many."""
        now = self.now()

        def redrive(connection: sqlite3.Connection) -> int:
            redriven = shelf.redrive(connection, now, uuid, task)
            for job, name in redriven:
                if_redriven = getattr(self._registry._registry.get(name), "if_redriven", None)
                if if_redriven is not None:
                    if_redriven(connection, job)
            return len(redriven)

        count = self.database.write(redrive)
        self.database.after_commit(lambda: self.ready_bell.ring(count))
        return count

    def cancel(self, uuid: str) -> bool:
        """Cancel a job that waits; False when it runs already or has ended."""
        now = self.now()
        cancelled = self.database.write(lambda connection: self.cancel_waiting(connection, uuid, now))
        self.database.after_commit(lambda: self.end_calls.call(uuid))
        self.database.after_commit(self.ready_bell.ring_all)  # its chord goes on, or who waited for a suspect
        return cancelled

    def delete_failed(self, uuid: str) -> bool:
        """Take a failed job off the shelf for good."""
        return self.database.write(lambda connection: shelf.delete_failed(connection, uuid))

    def delete_all_failed(self, task: str | None = None) -> int:
        """Take all failed jobs (of a task) off the shelf for good, a few at a time; return how many."""
        before, count = self.now(), 0
        while gone := self.database.write(lambda c: shelf.delete_some_failed(c, task, before)):
            count += gone
        return count

    def pause(
        self,
        task: str = "",
        seconds: float | None = None,
        reason: str = "paused by hand",
        *,
        extend: bool = False,
    ) -> None:
        """Let no job of a task (of the whole queue, by default) start, for a time or until `resume`.

        With `extend` a pause that stands already is made longer, never shorter.
        """
        until_at = None if seconds is None else self.now() + seconds
        self.database.write(lambda connection: shelf.pause(connection, task, reason, until_at, extend=extend))
        self.database.after_commit(self.clock_bell.ring)

    def resume(self, task: str = "", reason: str = "") -> bool:
        """Lift a pause (one whose reason begins with `reason`); False when there was none."""
        lifted = self.database.write(lambda connection: shelf.resume(connection, task, reason))
        self.database.after_commit(self.ready_bell.ring_all)
        return lifted

    # Looking

    def job(self, uuid: str) -> dict[str, Any] | None:
        """Describe a job for its holder, or return None; times are unix seconds."""
        return overview.job(self.database, self.serializer, uuid)

    def live(self, uuids: Iterable[str]) -> set[str]:
        """Return those of the jobs that wait or run."""
        asked = json.dumps(list(uuids))
        return {row["uuid"] for row in self.database.read(queries.LIVE, (asked,))}

    def overview(self) -> dict[str, Any]:
        """Describe the queue, its workers and instances; times are unix seconds."""
        return overview.queue(self.database, self.now())

    def list_jobs(
        self,
        state: str,
        task: str | None = None,
        limit: int = 50,
        before_id: int | None = None,
        q: str | None = None,
    ) -> list[dict[str, Any]]:
        """Describe the newest jobs of a state, for the operator: see `page_of_jobs`."""
        found: list[dict[str, Any]] = self.page_of_jobs(state, task, limit, before_id, q)["jobs"]
        return found

    def page_of_jobs(
        self,
        state: str,
        task: str | None = None,
        limit: int = 50,
        before_id: int | None = None,
        q: str | None = None,
    ) -> dict[str, Any]:
        """Describe the newest jobs of a state (of a task, with `q` in their error): `jobs` and `next_before_id`.

        The next page is had with `next_before_id` as `before_id`; it is None when there is none. `q` is looked
        for in some thousand errors in one go, so a page may be short, or empty, though another one follows.
        Units: times are unix seconds.
        """
        return overview.listed(self.database, state, task, q or "", limit, before_id)

    def pending(self, limit: int | None = None) -> list[Any]:
        """Return the ready jobs as Huey's tasks, next first, as their tries have left them."""
        return super().pending(limit) if self._immediate else self._tasks_in("ready", limit)

    def scheduled(self, limit: int | None = None) -> list[Any]:
        """Return the scheduled jobs as Huey's tasks, soonest first, as their tries have left them."""
        return super().scheduled(limit) if self._immediate else self._tasks_in("scheduled", limit)

    def _tasks_in(self, state: str, limit: int | None) -> list[Any]:
        found = []
        for row in self.database.read(queries.WAITING[state], (-1 if limit is None else limit,)):
            *claimed, due_at = row
            try:
                task = self.task_of(jobs.ClaimedJob(*claimed))
            except Exception as error:
                log.warning("Job %s is left out, it cannot be read: %s", row["uuid"], words_of(error))
                continue
            task.eta = None if due_at is None else naive_utc(due_at)
            found.append(task)
        return found

    def details(self, uuid: str) -> dict[str, Any] | None:
        """Describe a job for the operator: its arguments and each failed attempt, beside what its holder sees."""
        return overview.details(self.database, self.serializer, uuid)

    def stats(self, minutes: int = 60) -> dict[str, Any]:
        """Describe the last minutes (the present one is the last of them) and what each task came to in them.

        A minute's `wait_ms` and `run_ms` are means: for how long jobs were ready and their bodies ran, all tries
        of it, for each job done or failed in that minute; 0 where none was. A batch is one run, shared by its
        jobs. What is redriven is enqueued once more.
        The rates are those of the last two whole minutes and the present one: jobs enqueued, jobs that ended,
        per second. `drain_s` is what is ready, divided by service - arrival; None when nothing is ready or it
        does not get less.
        A task's counts are those of the minutes, `run_ms_max` (None without a run) too; `recent_run_ms` are its
        last twenty runs, the oldest first, whenever they were, `run_ms_p50` their median, `last_at` the last.
        Units: `_at` in unix seconds, `_ms` in milliseconds.
        """
        return stats.gather(self.database, self.now(), minutes)

    def pauses(self) -> list[dict[str, Any]]:
        """Describe what is paused: `task` ('' is the whole queue), `reason`, `until_at` (None: until resumed)."""
        return overview.pauses(self.database, self.now())

    def task_names(self) -> set[str]:
        """Name the tasks that the code has, and those that had jobs or are paused though it has them no more."""
        seen = {row["task"] for row in self.database.read(queries.TASK_NAMES)}
        return seen | set(self._registry._registry)

    def cron(self) -> list[dict[str, Any]]:
        """Describe every periodic task: when it fires next (None: over a month away) and ran last (None: never)."""
        minute, ran_at = int(self.now() // 60), stats.last_runs(self.database)
        described = []
        for task in self._registry.periodic_tasks:
            name = self._registry.task_to_string(type(task))
            next_minute = self._next_fires.next_due(name, task, minute)
            described.append(
                {
                    "task": name,
                    "next_at": None if next_minute is None else next_minute * 60,
                    "last_at": ran_at.get(name),
                }
            )
        return sorted(described, key=lambda one: (one["next_at"] is None, one["next_at"], one["task"]))

    def health(self) -> list[str]:
        """Return a sentence for everything that keeps jobs from running; empty when all is well."""
        troubles = self.consumer_troubles()
        return troubles or overview.health(self.database, self.now(), self.rules().limits)

    # Waiting

    def refuse_to_wait(self) -> None:
        """Raise DeadlockError where waiting for a job's result could never end."""
        if self.in_body or (self._database is not None and self._database.in_transaction):
            where = "a job" if self.in_body else "a transaction"
            raise DeadlockError(
                f"waiting for a job's result inside {where} can wait for ever (the threads that would run it wait "
                "too). Use .then() to go on with the result, or a chord to gather several."
            )

    def wait_for_results(self, uuids: Sequence[str], deadline: float | None) -> bool:
        """Wait until one of these jobs has a result, called by its end; False when the time is up.

        Raises: DeadlockError inside a job or a transaction; NoResultError when one of them never comes.
        Units: deadline on time.monotonic().
        """
        self.refuse_to_wait()
        awaited = [Awaited(self.database, uuid) for uuid in uuids]
        return self.wait_until(uuids, lambda: any(one.is_there(self.now()) for one in awaited), deadline)

    def wait_until(
        self,
        uuids: str | Sequence[str],
        is_so: Callable[[], bool],
        deadline: float | None,
        every_step: bool = False,
    ) -> bool:
        """Wait until something is so about jobs, called by their ends (or by every step); False when time is up.

        Units: deadline on time.monotonic().
        """
        uuids = [uuids] if isinstance(uuids, str) else uuids
        with self.end_calls.expect(uuids, every_step) as ended:
            while not is_so():
                left = math.inf if deadline is None else deadline - time.monotonic()
                if left <= 0 or self.end_calls.closed:
                    return is_so()  # it may have come about since, as the last thing before the end
                # A job that ends in another process calls nobody in this one: look.
                ended.wait(min(left, SIBLING_LOOK_S if self.has_siblings else ALONE_LOOK_S))
                ended.clear()
        return True

    def wait_for_end(self, uuid: str, seconds: float) -> None:
        """Return when the job has ended, when the time is up, or when the process is about to stop."""
        self.wait_until(uuid, lambda: overview.has_ended(self.database, uuid), time.monotonic() + seconds)

    def wait_for_change(self, uuid: str, seen: str, seconds: float) -> None:
        """Return once a job's `version` (as `job` gives it) is not the one seen, or when the time is up.

        It changes with the state, with each attempt, and with the progress.
        """
        deadline = time.monotonic() + seconds
        self.wait_until(
            uuid, lambda: overview.version(self.database, uuid) != seen, deadline, every_step=True
        )

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no job is ready or running (scheduled ones may be); False when the time is up."""
        deadline = time.monotonic() + timeout_s
        while True:
            seen = self.idle_bell.rings
            counts = self.overview()["counts"]
            if counts["ready"] == counts["running"] == 0:
                return True
            if time.monotonic() >= deadline:
                return False
            self.idle_bell.wait(seen, min(ALONE_LOOK_S, deadline - time.monotonic()))
