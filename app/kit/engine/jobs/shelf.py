"""What people do by hand: redrive, cancel, delete, pause; and looking a job's history up."""

from __future__ import annotations

import sqlite3

from app.kit.engine.jobs.upkeep import BATCH_ROWS


def redrive(
    connection: sqlite3.Connection, now: float, uuid: str | None = None, task: str | None = None
) -> list[tuple[str, str]]:
    """Make failed jobs ready again, as if new (their history stays): one, a task's, or all.

    Returns: (uuid, task) of each.
    """
    # A condition that is not asked for is not there at all: so SQLite sees which index holds just those rows.
    asked = {"uuid": uuid, "task": task}
    which = "".join(f" AND {column} = :{column}" for column, value in asked.items() if value is not None)
    rows = connection.execute(
        "UPDATE postroom_jobs SET state = 'ready', ready_at = :now, finished_at = NULL, error = NULL,"
        " result = NULL, attempt = 0, deaths = 0, waits = 0, redriven_at = :now, retries = NULL,"
        " retry_delay = NULL, progress = NULL"
        f" WHERE state = 'failed'{which} RETURNING uuid, task",
        {"now": now} | asked,
    )
    return [(row["uuid"], row["task"]) for row in rows.fetchall()]


def cancel(connection: sqlite3.Connection, uuid: str, now: float) -> tuple[str, bytes] | None:
    """Cancel a job that waits and return its task and payload; None when it runs or has ended."""
    rows = connection.execute(
        "UPDATE postroom_jobs SET state = 'cancelled', run_at = NULL, finished_at = ?,"
        " error = 'Cancelled: by hand' WHERE uuid = ? AND state IN ('ready', 'scheduled')"
        " RETURNING task, payload",
        (now, uuid),
    ).fetchall()
    return (rows[0]["task"], rows[0]["payload"]) if rows else None


def delete_failed(connection: sqlite3.Connection, uuid: str) -> bool:
    """Take a failed job off the shelf for good."""
    sql = "DELETE FROM postroom_jobs WHERE uuid = ? AND state = 'failed'"
    return connection.execute(sql, (uuid,)).rowcount == 1


def delete_some_failed(connection: sqlite3.Connection, task: str | None, before: float) -> int:
    """Take one batch of the jobs (of a task) that failed before a moment off the shelf; return how many."""
    of_task = "" if task is None else "AND task = :task"
    sql = (
        f"DELETE FROM postroom_jobs WHERE id IN (SELECT id FROM postroom_jobs WHERE state = 'failed' {of_task}"
        " AND finished_at <= :before LIMIT :most)"
    )
    return connection.execute(sql, {"task": task, "before": before, "most": BATCH_ROWS}).rowcount


def drop(connection: sqlite3.Connection, state: str) -> None:
    """Delete every job that is in a state."""
    connection.execute("DELETE FROM postroom_jobs WHERE state = ?", (state,))


def pause(
    connection: sqlite3.Connection, task: str, reason: str, until_at: float | None, *, extend: bool = False
) -> None:
    """Let no job of a task ('' for all) start, until a moment or until `resume`.

    It takes the place of the pause that stands; with `extend` only of one that would end earlier.
    """
    sql = (
        "INSERT INTO postroom_pauses VALUES (?, ?, ?)"
        " ON CONFLICT (task) DO UPDATE SET reason = excluded.reason, until_at = excluded.until_at"
    )
    if extend:
        sql += " WHERE until_at < excluded.until_at"
    connection.execute(sql, (task, reason, until_at))


def hold_restored(connection: sqlite3.Connection, made_at: str) -> None:
    """Pause the whole queue of a restored backup: what waited or ran when it was made may have been done since."""
    reason = (
        f"restored from a backup of {made_at}: what waits in it may have been done since, so look it through"
    )
    pause(connection, "", reason, None)
    # Its processes are not known to have died: what they ran counts no death.
    connection.execute("UPDATE postroom_instances SET state = 'stopping'")


def resume(connection: sqlite3.Connection, task: str, reason: str = "") -> bool:
    """Lift a pause (one whose reason begins with `reason`); False when there was none."""
    sql = "DELETE FROM postroom_pauses WHERE task = ?1 AND substr(reason, 1, length(?2)) = ?2"
    return connection.execute(sql, (task, reason)).rowcount == 1
