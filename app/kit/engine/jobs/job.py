"""The verbs of the queue: every statement that changes a job.

A job is one row that moves along these arrows; the WHERE of each UPDATE is the arrow's guard.

    (new) -> scheduled, ready     arrivals.py: enqueued
    scheduled -> ready        promote: its time has come
    ready     -> running      claims.py: one instance has it
    running   -> done         finish: fenced by (state, claim); zero rows means another owner has it
    running   -> ready        finish: retry now; or free: its instance died or stopped
    running   -> scheduled    finish: retry later; or free: it was overdue when its instance died
    running   -> failed       finish: out of retries; or free and shelve: it died MAX_DEATHS times
    running   -> cancelled    finish: revoked, expired or cancelled by itself
    (any, by hand)            shelf.py: cancel what waits, redrive what failed
    scheduled, ready -> failed    shelve: it cannot run at all

Who is ready is claimed by priority, then in the order of arrival. A retry, and what was scheduled, arrives anew,
behind all that waits; a job whose process died or stopped keeps its place, and a redriven one has its old one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from app.kit.engine.jobs import enqueue as arrivals
from app.kit.engine.jobs.schema import RUN_MS_MOST
from app.kit.errors import JobTooLargeError

MAX_DEATHS = 3
ENDED = ("done", "failed", "cancelled")
LIVE = ("scheduled", "ready", "running")
ANY_FLAG = "EXISTS (SELECT 1 FROM postroom_huey_data WHERE key >= 'r' AND key < 's')"
"""Whether there is any revoke flag: their keys begin with r: or rt:."""
CLAIMED = (
    "id, uuid, task, payload, attempt, deaths, waits, retries, retry_delay, timeout_s, alone, claim, started_at,"
    f" enqueued_at, redriven_at, ready_at, {ANY_FLAG}"
)
"""The columns of a ClaimedJob, in its order."""


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
    timeout_s: float | None
    alone: bool
    claim: int
    started_at: float
    enqueued_at: float
    redriven_at: float | None
    ready_at: float | None
    any_revoked: bool


@dataclass(slots=True)
class Ending:
    """All that one commit writes when a body has ended."""

    state: str
    run_at: float | None = None
    result: bytes | None = None
    error: str | None = None
    traceback: str | None = None
    progress: str | None = None
    waited: bool = False
    wait_counts: bool = True
    alone: bool = False
    retries: int | None = None
    retry_delay: float | None = None
    follow_ups: list[arrivals.NewJob] = field(default_factory=list)
    data: dict[str, bytes] = field(default_factory=dict)
    data_expires_at: float | None = None
    deleted_keys: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ChordPart:
    """One member's value for its chord."""

    chord: str
    size: int
    position: int
    value: bytes


# Finish


def finish(
    connection: sqlite3.Connection, call: Sequence[tuple[ClaimedJob, Ending]], now: float
) -> list[bool]:
    """End the claims of one call of a body: a job, or a batch of them, the first of which stands for the run.

    Returns: False (and nothing is written) for each that another owner has by now.
    """
    mine: list[bool] = []
    for job, ending in call:
        mine.append(_finish_one(connection, job, ending, now, is_run=True not in mine))
    return mine


def _finish_one(
    connection: sqlite3.Connection, job: ClaimedJob, ending: Ending, now: float, is_run: bool
) -> bool:
    ended = ending.state in ENDED
    run_ms = min(max(round((now - job.started_at) * 1000), 0), RUN_MS_MOST) if is_run else None
    cursor = connection.execute(
        "UPDATE postroom_jobs SET state = ?, run_at = ?, ready_at = ?, finished_at = ?, result = ?, error = ?,"
        " progress = IFNULL(?, progress), retries = ?, retry_delay = ?, attempt = attempt - ?,"
        " waits = waits + ?, alone = alone OR ?, run_ms = ?, place = IFNULL(?, place),"
        " instance = NULL, worker = NULL"
        " WHERE id = ? AND state = 'running' AND claim = ?",
        (
            ending.state, ending.run_at, job.ready_at if ended else now if ending.state == "ready" else None,
            now if ended else None, ending.result,
            ending.error if ending.state in ("failed", "cancelled") else None, ending.progress,
            ending.retries, ending.retry_delay, ending.waited, ending.waited and ending.wait_counts, ending.alone,
            run_ms, arrivals.next_place(connection) if ending.state == "ready" else None, job.id, job.claim,
        ),
    )  # fmt: skip
    if cursor.rowcount == 0:
        return False
    if ending.error is not None:
        connection.execute(
            "INSERT INTO postroom_attempts VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                job.id, job.attempt, "wait" if ending.waited else "error",
                job.started_at, now, ending.error, ending.traceback,
            ),
        )  # fmt: skip
    write_beside(connection, ending, now)
    return True


def write_beside(connection: sqlite3.Connection, ending: Ending, now: float) -> None:
    """Write what a job leaves beside its own row: follow-ups (never refused for depth), results, flags."""
    arrivals.insert(connection, ending.follow_ups, now)
    for key, value in ending.data.items():
        connection.execute(
            "INSERT OR REPLACE INTO postroom_huey_data (key, value, expires_at) VALUES (?, ?, ?)",
            (key, value, ending.data_expires_at),
        )
    for key in ending.deleted_keys:
        connection.execute("DELETE FROM postroom_huey_data WHERE key = ?", (key,))


def forget_flags(connection: sqlite3.Connection, uuids: Iterable[str]) -> None:
    """Forget that jobs were revoked: their bodies have run, or they were cancelled for it."""
    connection.executemany(
        "DELETE FROM postroom_huey_data WHERE key = 'r:' || ?", [(uuid,) for uuid in uuids]
    )


def add_chord_part(
    connection: sqlite3.Connection, part: ChordPart, now: float, room_bytes: int
) -> list[bytes] | None:
    """Note a member's value; the one that completes the chord gets all values in order, every other None.

    A member that ran twice counts once, and a chord fires once. The values go as it fires.
    Raises: JobTooLargeError as it fires, when the values are more than `room_bytes`: then not all were kept.
    """
    connection.execute(
        "INSERT OR IGNORE INTO postroom_chords (id, size, created_at) VALUES (?, ?, ?)",
        (part.chord, part.size, now),
    )
    added = connection.execute(
        "INSERT OR IGNORE INTO postroom_chord_parts SELECT id, ?2, IIF(bytes > ?4, x'', ?3) FROM postroom_chords"
        " WHERE id = ?1 AND fired_at IS NULL",
        (part.chord, part.position, part.value, room_bytes),
    )
    if added.rowcount == 0:
        return None
    chord = connection.execute(
        "UPDATE postroom_chords SET parts = parts + 1, bytes = bytes + ?, fired_at = IIF(parts + 1 = size, ?, NULL)"
        " WHERE id = ? RETURNING fired_at, bytes",
        (len(part.value), now, part.chord),
    ).fetchone()
    if chord["fired_at"] is None:
        return None
    sql = "SELECT value FROM postroom_chord_parts WHERE chord = ? ORDER BY position"
    values = [row[0] for row in connection.execute(sql, (part.chord,))]
    connection.execute("DELETE FROM postroom_chord_parts WHERE chord = ?", (part.chord,))
    if chord["bytes"] > room_bytes:
        raise JobTooLargeError(
            f"the results of a chord's {part.size} members take {chord['bytes']} bytes, MAX_JOB_BYTES allows "
            f"{room_bytes}: have them store the big things (files, rows) and return ids"
        )
    return values


# Time and death


def due(connection: sqlite3.Connection, now: float, limit: int) -> list[ClaimedJob]:
    """Return the jobs that `promote` would make ready."""
    sql = f"SELECT {CLAIMED} FROM postroom_jobs WHERE state = 'scheduled' AND run_at <= ? ORDER BY run_at LIMIT ?"
    return [ClaimedJob(*row) for row in connection.execute(sql, (now, limit))]


def set_starting(connection: sqlite3.Connection, job: ClaimedJob, starting: bool) -> None:
    """Note that a job's body has not begun, for its process starts; or that it begins."""
    connection.execute(
        "UPDATE postroom_jobs SET starting = ? WHERE id = ? AND state = 'running' AND claim = ?",
        (starting, job.id, job.claim),
    )


def promote(connection: sqlite3.Connection, now: float, limit: int = 1000) -> int:
    """Make due jobs ready; return how many."""
    return connection.execute(
        "UPDATE postroom_jobs SET state = 'ready', run_at = NULL, ready_at = ?, place = ? WHERE id IN"
        " (SELECT id FROM postroom_jobs WHERE state = 'scheduled' AND run_at <= ? ORDER BY run_at LIMIT ?)",
        (now, arrivals.next_place(connection), now, limit),
    ).rowcount


def free(
    connection: sqlite3.Connection, instance: str, now: float, worker: str | None = None
) -> list[ClaimedJob]:
    """Free the claims of an instance that is gone, and forget it; or of one dead worker of it. Return the jobs.

    The attempt is refunded. A death counts, unless the body had not begun, or the instance was stopping: then its
    work was cut off, not killed. A job that was overdue when it died comes back after as long again, so that others
    get their turn. A job with MAX_DEATHS deaths stays claimed by nobody: the caller must `shelve` it.
    """
    row = connection.execute("SELECT state FROM postroom_instances WHERE id = ?", (instance,)).fetchone()
    died = row is None or row["state"] == "running"
    connection.execute(
        "INSERT INTO postroom_attempts SELECT id, attempt, IIF(?1 AND NOT starting, 'death', 'stopped'),"
        " started_at, ?2, IIF(?1, 'its process died ', 'its process was stopped ')"
        " || IIF(starting, 'before its body had begun', 'while it ran'), NULL"
        " FROM postroom_jobs WHERE state = 'running' AND instance = ?3 AND worker = IFNULL(?4, worker)",
        (died, now, instance, worker),
    )
    hung = "WHEN ?1 AND started_at + timeout_s < ?2"
    rows = connection.execute(
        "UPDATE postroom_jobs SET attempt = attempt - 1, deaths = deaths + (?1 AND NOT starting),"
        " starting = 0, instance = NULL, worker = NULL,"
        f" state = CASE {hung} THEN 'scheduled' ELSE 'ready' END, run_at = CASE {hung} THEN ?2 + timeout_s END,"
        f" ready_at = CASE {hung} THEN NULL ELSE ?2 END"
        f" WHERE state = 'running' AND instance = ?3 AND worker = IFNULL(?4, worker) RETURNING {CLAIMED}",
        (died, now, instance, worker),
    ).fetchall()
    freed = [ClaimedJob(*row) for row in rows]
    owners = [(job.uuid,) for job in freed] + ([] if worker else [(instance,)])
    # What a revoke flag did is undone with the claim; locks go.
    connection.executemany(
        "UPDATE postroom_huey_data SET job = NULL WHERE job = ? AND key LIKE 'rt:%'", owners
    )
    connection.executemany("DELETE FROM postroom_huey_data WHERE job = ?", owners)
    if worker is None:
        connection.execute("DELETE FROM postroom_instance_tasks WHERE instance = ?", (instance,))
        connection.execute("DELETE FROM postroom_instances WHERE id = ?", (instance,))
    return freed


def shelve(
    connection: sqlite3.Connection, uuid: str, error: str, now: float, result: bytes | None = None
) -> None:
    """Put a job that waits on the shelf, with the reason."""
    connection.execute(
        "UPDATE postroom_jobs SET state = 'failed', run_at = NULL, finished_at = ?, error = ?, result = ?"
        " WHERE uuid = ? AND state IN ('ready', 'scheduled')",
        (now, error, result, uuid),
    )


def is_live(connection: sqlite3.Connection, task: str) -> bool:
    """Say whether any job of a task waits or runs."""
    # State by state, each on its own index: one IN would read every job there is.
    sql = "SELECT 1 FROM postroom_jobs WHERE state = '{}' AND task = ? LIMIT 1"
    return any(connection.execute(sql.format(state), (task,)).fetchone() for state in LIVE)
