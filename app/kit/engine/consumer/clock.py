"""The clock: one instance promotes due jobs and fires cron; every one watches for others and their deaths.

A frozen process keeps its lock, and with it the clock. So each other instance does what the clock has not done
a little after its time: every arrow is guarded by its row, and a minute of a task is noted once, whoever fires it.
"""

from __future__ import annotations

import math
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from huey.consumer import BaseProcess

from app.kit.engine.api import announcing
from app.kit.engine.careful_log import careful
from app.kit.engine.consumer.instances import file_lock, try_lock
from app.kit.engine.jobs import cron, job as jobs, queries, upkeep
from app.kit.engine.operate.control import SIBLING_LOOK_S

if TYPE_CHECKING:
    from app.kit.engine.consumer.consumer import EmbeddedConsumer

log = careful("postroom.clock")

LOOK_S = 1.0
"""How often to look for other processes, dead ones and a free clock."""
LATE_S = 2.0
"""What is undone for so long after its time is done by instances that do not hold the clock, too."""
UPKEEP_S = 60.0
DEPUTYS_UPKEEP_S = 10 * UPKEEP_S
"""How often those look after the tables."""
UPKEEP_PAUSE_S = 0.02
"""Between two batches of upkeep, so that others get the writer."""
PROMOTE_AT_ONCE = 1000


class Clock(BaseProcess):
    """Takes the place of Huey's scheduler thread."""

    process_name = "Clock"

    def __init__(self, huey: Any, stop_flag: Any, consumer: EmbeddedConsumer) -> None:
        super().__init__(huey, stop_flag)
        self.consumer = consumer
        self.lock = file_lock(huey.database.path.parent / "clock.lock")
        self.holds = False
        self._looked = -math.inf
        self._version = 0
        self._read_version = 0
        self._read_at = -math.inf
        self._next_run_at: float | None = None
        self._minute: int | None = None
        self._looked_at: dict[type, int] = {}
        self._upkeep_due = time.monotonic() + DEPUTYS_UPKEEP_S
        self._resumes_at: float | None = None

    def loop(self, now: float | None = None) -> None:
        """Do what is due, then sleep until the next thing is."""
        seen = self.huey.clock_bell.rings
        try:
            # While nobody commits, what was read a second ago still holds: an idle site reads next to nothing.
            version = self.huey.database.data_version()
            changed = version != self._read_version or time.monotonic() - self._read_at >= UPKEEP_S
            looks = time.monotonic() - self._looked >= LOOK_S
            if looks:
                self._look_around(version, changed)
                changed = changed or self._read_at == -math.inf
            if self.huey.has_siblings:
                self._notice_commits_elsewhere(version)
            self._end_pauses(changed)
            if self.holds:
                self._do_what_is_due(changed)
            elif looks:
                self._do_what_is_due(True, LATE_S)
            if changed:
                self._read_version, self._read_at = version, time.monotonic()
        except BaseException:
            log.exception("The clock stumbled; it goes on in a second")
            self.stop_flag.wait(LOOK_S)
            return
        self.huey.clock_bell.wait(seen, self._sleep_s())

    def shutdown(self) -> None:
        """Let go of the clock."""
        self.holds = False
        self.lock.release(force=True)

    def _look_around(self, version: int, changed: bool) -> None:
        self._looked = time.monotonic()
        instance = self.consumer.instance
        if changed:
            self.huey.has_siblings = bool(instance.others())
        if self.huey.has_siblings and instance.sweep():
            self.huey.ready_bell.ring_all()
        if not self.holds and try_lock(self.lock):
            instance.take_clock()
            self.holds = True
            self._upkeep_due = time.monotonic() + UPKEEP_S
            self._read_at = -math.inf  # what is due has not been read yet
        self.consumer.see_to_supervisor()
        self.consumer.recycle_if_stuck()
        if not self.huey.has_siblings:
            # A short-lived process may have come, enqueued and gone since the last look.
            self._notice_commits_elsewhere(version)

    def _notice_commits_elsewhere(self, version: int) -> None:
        if version != self._version:
            self._version = version
            self.huey.ready_bell.ring_all()
            self.huey.end_calls.call_all()

    def _do_what_is_due(self, changed: bool, late_s: float = 0) -> None:
        self._promote(changed, late_s)
        self._fire_cron(late_s)
        self._keep_up()

    def _promote(self, changed: bool, late_s: float) -> None:
        now = self.huey.now() - late_s
        if not changed and (self._next_run_at is None or self._next_run_at > now):
            return
        row = self.huey.database.read_one(queries.NEXT_RUN_AT)
        self._next_run_at = row[0] if row else None
        if self._next_run_at is None or self._next_run_at > now:
            return

        def promote(connection: sqlite3.Connection) -> tuple[list[jobs.ClaimedJob], int]:
            due = jobs.due(connection, now, PROMOTE_AT_ONCE) if is_heard else []
            return due, jobs.promote(connection, now, PROMOTE_AT_ONCE)

        is_heard = announcing.is_heard(self.huey)
        # A promotion that a power cut undoes is made again: the job is scheduled then, and due.
        due, promoted = self.huey.database.write(promote, durable=False)
        self.huey.ready_bell.ring(promoted)
        if promoted and not self.holds:
            log.warning(
                "The process that holds the clock does not get to its work: %d jobs were due", promoted
            )
        announcing.promoted(self.huey, due)
        row = self.huey.database.read_one(queries.NEXT_RUN_AT)
        self._next_run_at = row[0] if row else None

    def _fire_cron(self, late_s: float = 0) -> None:
        minute = int((self.huey.now() - late_s) // 60)
        if self._minute == minute or not self.huey.has_periodic_tasks:
            return
        self._minute = minute
        for task in self.huey.periodic_tasks():
            try:
                last = self.huey.last_cron_run(task, minute)
                # It has looked at most minutes already; not at those that a clock set back brings again.
                looked = self._looked_at.get(type(task), last)
                due = cron.last_due(task, max(last, looked) if looked < minute else last, minute)
                if due is not None:
                    self.huey.enqueue_cron(task, due)
                self._looked_at[type(task)] = minute
            except BaseException:  # its own, and no reason to forget the others
                log.exception("The periodic task %s cannot fire; it is tried again in a minute", task.name)

    def _keep_up(self) -> None:
        """Prune a batch and give pages back, a little at a time while there is something to do."""
        if time.monotonic() < self._upkeep_due:
            return
        now, settled, ages = self.huey.now(), self.huey.settled(), self.huey.ages
        gone = self.huey.database.write(
            lambda connection: upkeep.prune(connection, ages, settled, now), durable=False
        )
        idle = not gone and self.consumer.is_idle()
        left = self.huey.database.write(upkeep.vacuum, durable=False) if idle else 0
        if idle and not left:
            self.huey.database.shrink_wal()
        every_s = UPKEEP_S if self.holds else DEPUTYS_UPKEEP_S
        self._upkeep_due = time.monotonic() + (UPKEEP_PAUSE_S if gone or left else every_s)

    def _end_pauses(self, changed: bool) -> None:
        """Wake the workers when a pause with an end has ended."""
        now = self.huey.now()
        if not changed and (self._resumes_at is None or self._resumes_at > now):
            return
        if self._resumes_at is not None and self._resumes_at <= now:
            self.huey.ready_bell.ring_all()
        row = self.huey.database.read_one(queries.NEXT_RESUME, (now,))
        self._resumes_at = row[0] if row else None

    def _sleep_s(self) -> float:
        waits = [LOOK_S, SIBLING_LOOK_S if self.huey.has_siblings else LOOK_S]
        if self._resumes_at is not None:
            waits.append(self._resumes_at - self.huey.now())
        if self.holds and self._next_run_at is not None:
            waits.append(self._next_run_at - self.huey.now())
        if self.holds and self.huey.has_periodic_tasks:
            waits.append(60 - self.huey.now() % 60)
        if self.holds:
            waits.append(self._upkeep_due - time.monotonic())
        return max(0.0, min(waits))
