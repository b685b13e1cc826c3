"""The verbs of the queue: every statement that changes a job.

A job is one row that moves along these arrows; the WHERE of each UPDATE is the arrow's guard.

    scheduled -> ready        promote: its time has come
    ready     -> running      claim: one instance has it
    running   -> done         finish: fenced by (state, claim); zero rows means another owner has it
    running   -> ready        finish: retry now; or free: its instance died
    running   -> scheduled    finish: retry later
    running   -> failed       finish: out of retries; or free: it died MAX_DEATHS times
    running   -> cancelled    finish: revoked, expired or cancelled by itself
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.errors import QueueFullError

MAX_DEATHS = 3
LIVE = ("scheduled", "ready", "running")
NEXT_READY = "SELECT id FROM jobs WHERE state = 'ready' ORDER BY priority DESC, id LIMIT ?"


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be inserted; `run_at` (unix seconds) makes it scheduled."""

    uuid: str
    task: str
    payload: bytes
    priority: float = 0
    run_at: float | None = None


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job this instance has; `claim` is its fence."""

    id: int
    uuid: str
    task: str
    payload: bytes
    attempt: int
    deaths: int
    waits: int
    retries: int | None
    retry_delay: float | None
    claim: int
    started_at: float


@dataclass(slots=True)
class Ending:
    """All that one commit writes when a body has ended."""

    state: str
    run_at: float | None = None
    result: bytes | None = None
    error: str | None = None
    traceback: str | None = None
    waited: bool = False
    retries: int | None = None
    retry_delay: float | None = None
    follow_ups: list[NewJob] = field(default_factory=list)
    data: dict[str, bytes] = field(default_factory=dict)
    deleted_keys: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ChordPart:
    """One member's value for its chord."""

    chord: str
    size: int
    position: int
    value: bytes


# Enqueue


def insert(
    connection: sqlite3.Connection, new_jobs: Sequence[NewJob], now: float, max_pending: int | None = None
) -> None:
    """Insert jobs, all or none; an id that is live already stays the job it is (an idempotency key).

    Raises: QueueFullError when `max_pending` is given and they would not fit.
    """
    if max_pending is not None:
        pending = pending_count(connection)
        if pending + len(new_jobs) > max_pending:
            raise QueueFullError(
                f"{pending} jobs are waiting and {len(new_jobs)} more would pass MAX_PENDING_JOBS "
                f"({max_pending}): try again later, or raise it"
            )
    for job in new_jobs:
        if not _insert_one(connection, job, now) and _forget_ended(connection, job.uuid):
            _insert_one(connection, job, now)


def pending_count(connection: sqlite3.Connection) -> int:
    """Count the jobs that wait; costs the same at any depth."""
    sql = "SELECT SUM(n) FROM job_counts WHERE state IN ('ready', 'scheduled')"
    return int(connection.execute(sql).fetchone()[0])


def _insert_one(connection: sqlite3.Connection, job: NewJob, now: float) -> bool:
    waits = job.run_at is not None and job.run_at > now
    cursor = connection.execute(
        "INSERT INTO jobs (uuid, task, payload, priority, state, run_at, enqueued_at, ready_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (uuid) DO NOTHING",
        (
            job.uuid, job.task, job.payload, job.priority,
            "scheduled" if waits else "ready", job.run_at if waits else None, now, None if waits else now,
        ),
    )  # fmt: skip
    return cursor.rowcount == 1


def _forget_ended(connection: sqlite3.Connection, uuid: str) -> bool:
    sql = "DELETE FROM jobs WHERE uuid = ? AND state IN ('done', 'failed', 'cancelled')"
    return connection.execute(sql, (uuid,)).rowcount == 1


# Claim


def claim(
    connection: sqlite3.Connection, instance: str, worker: str, now: float, limit: int = 1
) -> list[ClaimedJob]:
    """Take the next ready jobs for one worker: highest priority first, then the oldest."""
    rows = connection.execute(
        "UPDATE jobs SET state = 'running', claim = claim + 1, attempt = attempt + 1,"
        " instance = ?, worker = ?, started_at = ?"
        f" WHERE id IN ({NEXT_READY})"
        " RETURNING id, uuid, task, payload, attempt, deaths, waits, retries, retry_delay, claim, started_at",
        (instance, worker, now, limit),
    ).fetchall()
    return [ClaimedJob(*row) for row in sorted(rows, key=lambda row: row["id"])]


# Finish


def finish(connection: sqlite3.Connection, job: ClaimedJob, ending: Ending, now: float) -> bool:
    """End this claim of a job; False (and nothing written) when another owner has the job by now."""
    ended = ending.state in ("done", "failed", "cancelled")
    cursor = connection.execute(
        "UPDATE jobs SET state = ?, run_at = ?, ready_at = ?, finished_at = ?, result = ?, error = ?,"
        " retries = ?, retry_delay = ?, attempt = attempt - ?, waits = waits + ?, instance = NULL, worker = NULL"
        " WHERE id = ? AND state = 'running' AND claim = ?",
        (
            ending.state, ending.run_at, now if ending.state == "ready" else None, now if ended else None,
            ending.result, ending.error if ending.state in ("failed", "cancelled") else None,
            ending.retries, ending.retry_delay, ending.waited, ending.waited,
            job.id, job.claim,
        ),
    )  # fmt: skip
    if cursor.rowcount == 0:
        return False
    if ending.error is not None:
        connection.execute(
            "INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                job.id, job.attempt, "wait" if ending.waited else "error",
                job.started_at, now, ending.error, ending.traceback,
            ),
        )  # fmt: skip
    insert(connection, ending.follow_ups, now)
    for key, value in ending.data.items():
        connection.execute("INSERT OR REPLACE INTO huey_data (key, value) VALUES (?, ?)", (key, value))
    for key in ending.deleted_keys:
        connection.execute("DELETE FROM huey_data WHERE key = ?", (key,))
    return True


def add_chord_part(connection: sqlite3.Connection, part: ChordPart, now: float) -> list[bytes] | None:
    """Note a member's value; the one that completes the chord gets all values in order, every other None.

    A member that ran twice counts once, and a chord fires once.
    """
    connection.execute("INSERT OR IGNORE INTO chords VALUES (?, ?, ?, NULL)", (part.chord, part.size, now))
    connection.execute(
        "INSERT OR IGNORE INTO chord_parts VALUES (?, ?, ?)", (part.chord, part.position, part.value)
    )
    complete = connection.execute(
        "UPDATE chords SET fired_at = ? WHERE id = ? AND fired_at IS NULL"
        " AND size = (SELECT COUNT(*) FROM chord_parts WHERE chord = chords.id)",
        (now, part.chord),
    )
    if complete.rowcount == 0:
        return None
    sql = "SELECT value FROM chord_parts WHERE chord = ? ORDER BY position"
    return [row[0] for row in connection.execute(sql, (part.chord,))]


def insert_failed(connection: sqlite3.Connection, job: NewJob, error: str, now: float) -> None:
    """Put a job that cannot even start on the shelf, with the reason."""
    insert(connection, [job], now)
    connection.execute(
        "UPDATE jobs SET state = 'failed', ready_at = NULL, run_at = NULL, finished_at = ?, error = ?"
        " WHERE uuid = ? AND state IN ('ready', 'scheduled')",
        (now, error, job.uuid),
    )


# Time and death


def promote(connection: sqlite3.Connection, now: float, limit: int = 1000) -> int:
    """Make due jobs ready; return how many."""
    return connection.execute(
        "UPDATE jobs SET state = 'ready', run_at = NULL, ready_at = ? WHERE id IN"
        " (SELECT id FROM jobs WHERE state = 'scheduled' AND run_at <= ? ORDER BY run_at LIMIT ?)",
        (now, now, limit),
    ).rowcount


def free(connection: sqlite3.Connection, instance: str, now: float) -> int:
    """Free the claims of an instance that is gone, and forget it; return how many jobs it had.

    The attempt is refunded. A death counts, unless the instance was stopping: then its work was cut off, not
    killed. A job that died MAX_DEATHS times goes to the shelf.
    """
    row = connection.execute("SELECT state FROM instances WHERE id = ?", (instance,)).fetchone()
    died = row is None or row["state"] == "running"
    reason = "its process died while it ran" if died else "its process was stopped while it ran"
    connection.execute(
        "INSERT INTO attempts SELECT id, attempt, ?, started_at, ?, ?, NULL FROM jobs"
        " WHERE state = 'running' AND instance = ?",
        ("death" if died else "stopped", now, reason, instance),
    )
    freed = connection.execute(
        "UPDATE jobs SET attempt = attempt - 1, deaths = deaths + :died, instance = NULL, worker = NULL,"
        " state = CASE WHEN deaths + :died >= :cap THEN 'failed' ELSE 'ready' END,"
        " ready_at = CASE WHEN deaths + :died >= :cap THEN NULL ELSE :now END,"
        " finished_at = CASE WHEN deaths + :died >= :cap THEN :now END,"
        " error = CASE WHEN deaths + :died >= :cap"
        " THEN 'ProcessDied: its process died ' || (deaths + :died) || ' times while it ran' END"
        " WHERE state = 'running' AND instance = :instance",
        {"died": int(died), "cap": MAX_DEATHS, "now": now, "instance": instance},
    ).rowcount
    connection.execute("DELETE FROM instances WHERE id = ?", (instance,))
    return freed


def add_cron_run(connection: sqlite3.Connection, task: str, minute: int) -> bool:
    """Note that a periodic task fires for a minute; False when it has fired for it already."""
    sql = "INSERT OR IGNORE INTO cron_runs VALUES (?, ?)"
    if connection.execute(sql, (task, minute)).rowcount == 0:
        return False
    connection.execute("DELETE FROM cron_runs WHERE task = ? AND minute < ?", (task, minute - 7 * 24 * 60))
    return True


# By hand: Huey's storage contract, which knows only bytes


def take(connection: sqlite3.Connection) -> bytes | None:
    """Take the next ready job's payload off the queue for good."""
    rows = connection.execute(
        f"DELETE FROM jobs WHERE id IN ({NEXT_READY}) RETURNING payload", (1,)
    ).fetchall()
    return rows[0]["payload"] if rows else None


def take_due(connection: sqlite3.Connection, now: float) -> list[bytes]:
    """Take the payloads that are due off the schedule for good, soonest first."""
    sql = "DELETE FROM jobs WHERE state = 'scheduled' AND run_at <= ? RETURNING run_at, id, payload"
    rows = connection.execute(sql, (now,)).fetchall()
    return [row["payload"] for row in sorted(rows, key=lambda row: (row["run_at"], row["id"]))]


def drop(connection: sqlite3.Connection, state: str) -> None:
    """Delete every job that is in a state."""
    connection.execute("DELETE FROM jobs WHERE state = ?", (state,))
