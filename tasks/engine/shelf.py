"""What people do by hand: redrive, cancel, delete, pause; and looking a job's history up."""

from __future__ import annotations

import sqlite3


def redrive(
    connection: sqlite3.Connection, now: float, uuid: str | None = None, task: str | None = None
) -> int:
    """Make failed jobs ready again, as if new (their history stays): one, a task's, or all; return how many."""
    return connection.execute(
        "UPDATE jobs SET state = 'ready', ready_at = ?, finished_at = NULL, error = NULL, result = NULL,"
        " attempt = 0, deaths = 0, waits = 0, retries = NULL, retry_delay = NULL, progress = NULL"
        " WHERE state = 'failed' AND (?2 IS NULL OR uuid = ?2) AND (?3 IS NULL OR task = ?3)",
        (now, uuid, task),
    ).rowcount


def cancel(connection: sqlite3.Connection, uuid: str, now: float) -> bytes | None:
    """Cancel a job that waits and return its payload; None when it runs or has ended."""
    rows = connection.execute(
        "UPDATE jobs SET state = 'cancelled', run_at = NULL, ready_at = NULL, finished_at = ?,"
        " error = 'Cancelled: by hand' WHERE uuid = ? AND state IN ('ready', 'scheduled') RETURNING payload",
        (now, uuid),
    ).fetchall()
    return rows[0]["payload"] if rows else None


def delete_failed(connection: sqlite3.Connection, uuid: str) -> bool:
    """Take a failed job off the shelf for good."""
    sql = "DELETE FROM jobs WHERE uuid = ? AND state = 'failed'"
    return connection.execute(sql, (uuid,)).rowcount == 1


def drop(connection: sqlite3.Connection, state: str) -> None:
    """Delete every job that is in a state."""
    connection.execute("DELETE FROM jobs WHERE state = ?", (state,))


def pause(connection: sqlite3.Connection, task: str, reason: str, until_at: float | None) -> None:
    """Let no job of a task ('' for all) start, until a moment or until `resume`."""
    connection.execute("INSERT OR REPLACE INTO pauses VALUES (?, ?, ?)", (task, reason, until_at))


def resume(connection: sqlite3.Connection, task: str) -> bool:
    """Lift a pause; False when there was none."""
    return connection.execute("DELETE FROM pauses WHERE task = ?", (task,)).rowcount == 1
