"""How jobs come into the queue: one by one, or very many at a stroke."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from app.kit.errors import ConflictError, QueueFullError

INSERT = (
    "INSERT INTO postroom_jobs (uuid, task, payload, priority, timeout_s, state, run_at, enqueued_at, ready_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (uuid) DO NOTHING"
)
COUNT = """
INSERT INTO postroom_task_counts (task, scheduled, ready, minute, now_enqueued) VALUES (?1, ?2, ?3, ?4, ?2 + ?3)
ON CONFLICT (task) DO UPDATE SET scheduled = scheduled + ?2, ready = ready + ?3, minute = ?4,
    now_enqueued = now_enqueued + ?2 + ?3
"""


class NewJob(NamedTuple):
    """A job to be inserted; `run_at` (unix seconds) makes it scheduled."""

    uuid: str
    task: str
    payload: bytes
    priority: float = 0
    run_at: float | None = None
    timeout_s: float | None = None
    is_member: bool = False
    """Of a chord, or leads to one: then no other job can stand in for it."""


def insert(
    connection: sqlite3.Connection, new_jobs: Sequence[NewJob], now: float, max_pending: int | None = None
) -> None:
    """Insert jobs, all or none; an id that is live already stays the job it is (an idempotency key).

    Raises: QueueFullError when `max_pending` is given and they would not fit; ConflictError for a chord's member
    that is live already.
    """
    all_fresh = len(new_jobs) > 1 and _insert_fresh(connection, new_jobs, now)
    inserted = new_jobs if all_fresh else [job for job in new_jobs if _insert_or_renew(connection, job, now)]
    _count(connection, inserted, now)
    # Checked last, when it is known how many are new; the error takes them all back.
    if max_pending is not None and inserted and (pending := pending_count(connection)) > max_pending:
        raise QueueFullError(
            f"{pending - len(inserted)} jobs are waiting and {len(inserted)} more would pass MAX_PENDING_JOBS "
            f"({max_pending}): try again later, or raise it"
        )


def pending_count(connection: sqlite3.Connection) -> int:
    """Count the jobs that wait; costs the same at any depth."""
    sql = "SELECT IFNULL(SUM(scheduled + ready), 0) FROM postroom_task_counts"
    return int(connection.execute(sql).fetchone()[0])


def next_place(connection: sqlite3.Connection) -> int | None:
    """Take the last place of the line: the next number of the ids' own counter (None: there never was a job)."""
    sql = "UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'postroom_jobs' RETURNING seq"
    row = connection.execute(sql).fetchone()
    return None if row is None else int(row[0])


def _insert_fresh(connection: sqlite3.Connection, new_jobs: Sequence[NewJob], now: float) -> bool:
    """Insert many jobs at a stroke, if none of their ids is known; else insert none."""
    connection.execute("SAVEPOINT fresh")
    rows = (_values(job, now) for job in new_jobs)
    are_fresh = connection.executemany(INSERT, rows).rowcount == len(new_jobs)
    if not are_fresh:
        connection.execute("ROLLBACK TO fresh")
    connection.execute("RELEASE fresh")
    return are_fresh


def _count(connection: sqlite3.Connection, inserted: Sequence[NewJob], now: float) -> None:
    """Count jobs that came, by task, in their own transaction."""
    came: dict[tuple[str, bool], int] = {}
    for job in inserted:
        kind = job.task, _is_scheduled(job, now)
        came[kind] = came.get(kind, 0) + 1
    for (task, is_scheduled), count in came.items():
        scheduled = count if is_scheduled else 0
        connection.execute(COUNT, (task, scheduled, count - scheduled, int(now // 60)))


def _insert_or_renew(connection: sqlite3.Connection, job: NewJob, now: float) -> bool:
    forget = "DELETE FROM postroom_jobs WHERE uuid = ? AND state IN ('done', 'failed', 'cancelled')"
    is_new = connection.execute(INSERT, _values(job, now)).rowcount == 1 or (
        connection.execute(forget, (job.uuid,)).rowcount == 1
        and connection.execute(INSERT, _values(job, now)).rowcount == 1
    )
    if job.is_member and not is_new:
        raise ConflictError(
            f"job {job.uuid} is to be a member of a chord, but a job with this id waits or runs already, and the "
            "chord would never hear of it: leave the id out, or wait until that job has ended"
        )
    return is_new


def _values(job: NewJob, now: float) -> tuple[object, ...]:
    uuid, task, payload, priority, run_at, timeout_s, _ = job
    if _is_scheduled(job, now):
        return uuid, task, payload, priority, timeout_s, "scheduled", run_at, now, None
    return uuid, task, payload, priority, timeout_s, "ready", None, now, now


def _is_scheduled(job: NewJob, now: float) -> bool:
    return job.run_at is not None and job.run_at > now
