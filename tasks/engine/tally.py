"""What happens to jobs, added to its minute in the commit it happens in: so the numbers survive kills, exactly."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from dataclasses import dataclass

LAST_RUNS = 20
"""So many durations are kept of each task."""
RUN_MS_CHARS = 10
RUN_MS_MOST = 999_999_999
"""What fits into RUN_MS_CHARS with its comma: eleven days."""

# Numbers of a minute that is over are put by first, by a trigger.
ADD = f"""
INSERT INTO task_counts (task, minute, now_enqueued, now_done, now_failed, now_cancelled, now_wait_ms,
    now_run_ms, now_run_ms_max, last_run_at, last_runs_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (task) DO UPDATE SET minute = excluded.minute,
    now_enqueued = IIF(minute = excluded.minute, now_enqueued, 0) + excluded.now_enqueued,
    now_done = IIF(minute = excluded.minute, now_done, 0) + excluded.now_done,
    now_failed = IIF(minute = excluded.minute, now_failed, 0) + excluded.now_failed,
    now_cancelled = IIF(minute = excluded.minute, now_cancelled, 0) + excluded.now_cancelled,
    now_wait_ms = IIF(minute = excluded.minute, now_wait_ms, 0) + excluded.now_wait_ms,
    now_run_ms = IIF(minute = excluded.minute, now_run_ms, 0) + excluded.now_run_ms,
    now_run_ms_max = MAX(IIF(minute = excluded.minute, now_run_ms_max, 0), excluded.now_run_ms_max),
    last_run_at = IIF(excluded.last_run_at > 0, excluded.last_run_at, last_run_at),
    last_runs_ms = substr(excluded.last_runs_ms || last_runs_ms, 1, {LAST_RUNS * RUN_MS_CHARS})
"""


@dataclass(slots=True)
class _Counts:
    enqueued: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    wait_ms: int = 0
    run_ms: int | None = None


class Tally:
    """What one commit does to jobs, by task: gathered first, so that ten thousand jobs are one write."""

    __slots__ = ("_by_task",)

    def __init__(self) -> None:
        self._by_task: defaultdict[str, _Counts] = defaultdict(_Counts)

    def enqueued(self, task: str) -> None:
        """Count a job that came in, or came back from the shelf."""
        self._by_task[task].enqueued += 1

    def ended(self, task: str, state: str) -> None:
        """Count a job that came to an end; one that is to run again has not."""
        counts = self._by_task[task]
        if state == "done":
            counts.done += 1
        elif state == "failed":
            counts.failed += 1
        elif state == "cancelled":
            counts.cancelled += 1

    def waited(self, task: str, seconds: float) -> None:
        """Add for how long a job was ready before it ran."""
        self._by_task[task].wait_ms += _ms(seconds)

    def ran(self, task: str, seconds: float) -> None:
        """Note the run of the body: one, however many jobs it was for, and however they ended."""
        self._by_task[task].run_ms = _ms(seconds)

    def write(self, connection: sqlite3.Connection, now: float) -> None:
        """Add it all to the present minute."""
        for task, counts in self._by_task.items():
            run_ms, ran_at, run_text = counts.run_ms, now, ""
            if run_ms is None:
                run_ms, ran_at = 0, 0.0
            else:
                run_text = f"{run_ms:{RUN_MS_CHARS - 1}d},"
            connection.execute(
                ADD,
                (
                    task, int(now // 60), counts.enqueued, counts.done, counts.failed, counts.cancelled,
                    counts.wait_ms, run_ms, run_ms, ran_at, run_text,
                ),
            )  # fmt: skip


def count_end(connection: sqlite3.Connection, task: str, state: str, now: float) -> None:
    """Count the end of a job that did not run."""
    tally = Tally()
    tally.ended(task, state)
    tally.write(connection, now)


def _ms(seconds: float) -> int:
    """Turn a duration into whole milliseconds; a clock that was set back makes none negative."""
    return min(max(round(seconds * 1000), 0), RUN_MS_MOST)
