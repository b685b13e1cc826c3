"""When a periodic task is due: every minute fires once, missed minutes are caught up by one run.

Minutes are counted since 1970, in UTC, as the `crontab` of a task is.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from typing import Any

from huey import crontab

# Left to itself Huey skips what it cannot read: "0,5/15" would be minute 0 alone, and nothing would say so.
crontab.__defaults__ = (*(crontab.__defaults__ or ())[:-1], True)

CATCH_UP_MINUTES = 366 * 24 * 60
"""However long nothing ran: the run of a yearly task is caught up too."""
LOOK_AHEAD_MINUTES = 32 * 24 * 60


def last_due(task: Any, last_run: int, minute: int) -> int | None:
    """Return the latest minute up to `minute` the task should have fired at since `last_run`, or None."""
    first = max(last_run + 1, minute - CATCH_UP_MINUTES)
    return next((m for m in range(minute, first - 1, -1) if task.validate_datetime(_as_datetime(m))), None)


def next_due(task: Any, minute: int) -> int | None:
    """Return the first minute after `minute` the task fires at; None when it is over a month away."""
    ahead = range(minute + 1, minute + LOOK_AHEAD_MINUTES)
    return next((m for m in ahead if task.validate_datetime(_as_datetime(m))), None)


def add_cron_run(connection: sqlite3.Connection, task: str, minute: int, present: int | None = None) -> bool:
    """Note that a periodic task fires for a minute; False when it has fired for it, or for a later one, already.

    Later minutes count up to the present one: those beyond were noted while the clock was ahead.
    """
    later = "SELECT 1 FROM postroom_cron_runs WHERE task = ? AND minute > ? AND minute <= ?"
    if connection.execute(later, (task, minute, minute if present is None else present)).fetchone():
        return False  # another process did it while this one was frozen
    sql = "INSERT OR IGNORE INTO postroom_cron_runs VALUES (?, ?)"
    if connection.execute(sql, (task, minute)).rowcount == 0:
        return False
    connection.execute(
        "DELETE FROM postroom_cron_runs WHERE task = ? AND minute < ?", (task, minute - 7 * 24 * 60)
    )
    return True


class NextFires:
    """Remembers when tasks fire next: to find a rare one takes a look at every minute of a month."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, int | None]] = {}

    def next_due(self, name: str, task: Any, minute: int) -> int | None:
        """Return what next_due does."""
        asked, found = self._found.get(name, (minute + 1, None))
        if asked > minute or minute >= (asked + 60 if found is None else found):
            self._found[name] = asked, found = minute, next_due(task, minute)
        return found


def _as_datetime(minute: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(minute * 60, dt.UTC).replace(tzinfo=None)
