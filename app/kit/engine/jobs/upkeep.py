"""Keeping the tables small: what is old goes, in small batches, so that nobody waits long for the writer."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

BATCH_ROWS = 500
KEEP_DONE_ROWS = 10_000
KEEP_DONE_S = 3600.0
"""Done rows (of jobs, and of chords) beyond KEEP_DONE_ROWS go once they are this old, whatever their age limit."""
FIRED_CHORD_TTL_S = 7 * 24 * 3600.0
LOST_CHORD_TTL_S = 365 * 24 * 3600.0
"""A chord waits that long for its last member, which may be scheduled far ahead."""
KEEP_KEYS_S = 365 * 24 * 3600.0
"""A lock that nobody frees, and what else is put by key without an end, lasts as long."""
KEEP_MINUTES = 25 * 60
KEEP_MINUTE_ROWS = 50_000
"""Of the numbers of minutes and tasks; where very many tasks are busy, fewer hours are kept."""
KEEP_TASK_MINUTES = 62 * 24 * 60
KEEP_IDLE_TASKS = 1000
"""Of a task that has no jobs, the numbers stay as long, and of so many at most."""
VACUUM_PAGES = 250


REVOKED_AND_LIVE = (  # a flag that says of a job that it is revoked stays until the job has met it
    "SELECT 1 FROM postroom_jobs WHERE substr(key, 1, 2) = 'r:' AND uuid = substr(key, 3)"
    " AND state IN ('scheduled', 'ready', 'running')"
)


@dataclass(frozen=True, slots=True)
class Ages:
    """How long what is kept. Units: seconds."""

    result_s: float = 24 * 3600.0
    done_s: float = 24 * 3600.0
    failed_s: float = 30 * 24 * 3600.0


def prune(connection: sqlite3.Connection, ages: Ages, now: float, latest: float = 0) -> int:
    """Delete one batch of what is past its age; return how many rows went (0: nothing is left to do).

    `now` is a time that no jump of the clock has touched; `latest`, where that is later, the clock's own.
    """
    gone = _delete_ended(connection, ("done", "cancelled"), now - ages.done_s)
    gone += _delete_ended(connection, ("failed",), now - ages.failed_s)
    gone += _delete_surplus(connection, now)
    if ages.result_s < ages.done_s:
        gone += connection.execute(
            "UPDATE postroom_jobs SET result = NULL WHERE id IN (SELECT id FROM postroom_jobs WHERE state = 'done'"
            " AND finished_at >= ? AND finished_at < ? AND result IS NOT NULL LIMIT ?)",
            (now - ages.done_s, now - ages.result_s, BATCH_ROWS),
        ).rowcount
    for table, key, is_old, moment in (
        ("huey_data", "key", f"expires_at < ? AND NOT EXISTS ({REVOKED_AND_LIVE})", now),
        ("huey_counters", "key", "expires_at < ?", now),
        ("chords", "id", "fired_at < ?", now - FIRED_CHORD_TTL_S),
        ("chords", "id", "created_at < ?", now - LOST_CHORD_TTL_S),
        ("pauses", "task", "until_at < ?", now),
    ):
        sql = f"SELECT {key} FROM postroom_{table} WHERE {is_old} LIMIT ?"
        sql = f"DELETE FROM postroom_{table} WHERE {key} IN ({sql})"
        gone += connection.execute(sql, (moment, BATCH_ROWS)).rowcount
    gone += connection.execute(
        "DELETE FROM postroom_chords WHERE id IN (SELECT id FROM postroom_chords WHERE fired_at < ?"
        " ORDER BY fired_at DESC LIMIT ? OFFSET ?)",
        (now - KEEP_DONE_S, BATCH_ROWS, KEEP_DONE_ROWS),
    ).rowcount
    return gone + _delete_numbers(connection, now, max(now, latest))


def _delete_numbers(connection: sqlite3.Connection, now: float, latest: float) -> int:
    """Delete the numbers of minutes long past (or far ahead: the clock was wrong), and of tasks long gone."""
    present = int(now // 60)
    gone = connection.execute(
        "DELETE FROM postroom_past_minutes WHERE minute < ?1 OR minute > ?2"
        " OR minute <= (SELECT minute FROM postroom_past_minutes ORDER BY minute DESC LIMIT 1 OFFSET ?3)",
        (present - KEEP_MINUTES, int(latest // 60) + KEEP_MINUTES, KEEP_MINUTE_ROWS),
    ).rowcount
    without_jobs = "scheduled + ready + running + done + failed + cancelled = 0"
    return (
        gone
        + connection.execute(
            f"DELETE FROM postroom_task_counts WHERE {without_jobs} AND (minute < ? OR task IN"
            f" (SELECT task FROM postroom_task_counts WHERE {without_jobs}"
            " ORDER BY minute DESC LIMIT -1 OFFSET ?))",
            (present - KEEP_TASK_MINUTES, KEEP_IDLE_TASKS),
        ).rowcount
    )


def vacuum(connection: sqlite3.Connection) -> bool:
    """Give a few free pages back to the system; say whether there is more to give.

    A file that somebody made without `auto_vacuum` gives nothing back, and is not asked again and again.
    """
    before = _free_pages(connection)
    for _ in range(min(before, VACUUM_PAGES)):
        # One by one: Python's sqlite3 ends this statement after its first page, whatever number it names.
        connection.execute("PRAGMA incremental_vacuum(1)").fetchall()
    return 0 < _free_pages(connection) < before


def _free_pages(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])


def _delete_ended(connection: sqlite3.Connection, states: tuple[str, ...], before: float) -> int:
    return sum(
        connection.execute(
            "DELETE FROM postroom_jobs WHERE id IN"
            " (SELECT id FROM postroom_jobs WHERE state = ? AND finished_at < ? LIMIT ?)",
            (state, before, BATCH_ROWS),
        ).rowcount
        for state in states
    )


def _delete_surplus(connection: sqlite3.Connection, now: float) -> int:
    done = connection.execute("SELECT IFNULL(SUM(done), 0) FROM postroom_task_counts").fetchone()[0]
    surplus = min(done - KEEP_DONE_ROWS, BATCH_ROWS)
    if surplus <= 0:
        return 0
    return connection.execute(
        "DELETE FROM postroom_jobs WHERE id IN"
        " (SELECT id FROM postroom_jobs WHERE state = 'done' AND finished_at < ?"
        " ORDER BY finished_at LIMIT ?)",
        (now - KEEP_DONE_S, surplus),
    ).rowcount
