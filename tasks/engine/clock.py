"""The clock: one instance promotes due jobs and fires cron; every one watches for others and their deaths."""

from __future__ import annotations

import datetime as dt
import logging
import math
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from huey.consumer import BaseProcess

from tasks.engine import jobs, queries
from tasks.engine.instances import file_lock, try_lock

if TYPE_CHECKING:
    from tasks.engine.consumer import EmbeddedConsumer

log = logging.getLogger("postroom.clock")

LOOK_S = 1.0
"""How often to look for other processes, dead ones and a free clock."""
SIBLING_LOOK_S = 0.025
"""How often to look for other processes' commits while there are any."""
CATCH_UP_MINUTES = 7 * 24 * 60
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
        self._next_run_at: float | None = None
        self._minute: int | None = None

    def loop(self, now: float | None = None) -> None:
        """Do what is due, then sleep until the next thing is."""
        seen = self.huey.clock_bell.rings
        try:
            if time.monotonic() - self._looked >= LOOK_S:
                self._look_around()
            if self.huey.has_siblings:
                self._notice_commits_elsewhere()
            if self.holds:
                self._promote()
                self._fire_cron()
        except Exception:
            log.exception("The clock stumbled; it goes on in a second")
            self.stop_flag.wait(LOOK_S)
            return
        self.huey.clock_bell.wait(seen, self._sleep_s())

    def shutdown(self) -> None:
        """Let go of the clock."""
        if self.holds:
            self.holds = False
            self.lock.release()

    def _look_around(self) -> None:
        self._looked = time.monotonic()
        instance = self.consumer.instance
        self.huey.has_siblings = bool(instance.others())
        if self.huey.has_siblings and instance.sweep():
            self.huey.ready_bell.ring_all()
        if not self.holds and try_lock(self.lock):
            self.holds = True
            instance.set_clock(True)
        if not self.huey.has_siblings:
            # A short-lived process may have come, enqueued and gone since the last look.
            self._notice_commits_elsewhere()

    def _notice_commits_elsewhere(self) -> None:
        version = self.huey.database.data_version()
        if version != self._version:
            self._version = version
            self.huey.ready_bell.ring_all()
            self.huey.end_calls.call_all()

    def _promote(self) -> None:
        now = self.huey.now()
        row = self.huey.database.read_one(queries.NEXT_RUN_AT)
        self._next_run_at = row[0] if row else None
        if self._next_run_at is None or self._next_run_at > now:
            return

        def promote(connection: sqlite3.Connection) -> int:
            return jobs.promote(connection, now, PROMOTE_AT_ONCE)

        promoted = self.huey.database.write(promote)
        self.huey.ready_bell.ring(promoted)
        row = self.huey.database.read_one(queries.NEXT_RUN_AT)
        self._next_run_at = row[0] if row else None

    def _fire_cron(self) -> None:
        minute = int(self.huey.now() // 60)
        if self._minute == minute or not self.huey.has_periodic_tasks:
            return
        first = minute if self._minute is None else max(self._minute + 1, minute - CATCH_UP_MINUTES)
        self._minute = minute
        for task in self.huey.periodic_tasks():
            due = [m for m in range(first, minute + 1) if task.validate_datetime(_as_datetime(m))]
            if due:
                self.huey.enqueue_cron(task, due[-1])

    def _sleep_s(self) -> float:
        waits = [LOOK_S, SIBLING_LOOK_S if self.huey.has_siblings else LOOK_S]
        if self.holds and self._next_run_at is not None:
            waits.append(self._next_run_at - self.huey.now())
        if self.holds and self.huey.has_periodic_tasks:
            waits.append(60 - self.huey.now() % 60)
        return max(0.0, min(waits))


def _as_datetime(minute: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(minute * 60, dt.UTC).replace(tzinfo=None)
