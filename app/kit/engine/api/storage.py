"""Huey's storage contract over the kit's tables: locks, flags, counters and results by key."""

from __future__ import annotations

import datetime as dt
import sqlite3
import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from huey.constants import EmptyData
from huey.storage import BaseStorage, MemoryStorage

from app.kit.database.file import Database
from app.kit.engine.jobs import claim as claims, enqueue as arrivals, queries, shelf
from app.kit.engine.jobs.upkeep import KEEP_KEYS_S, Ages
from app.kit.engine.times import unix_time
from app.kit.errors import NoResultError

if TYPE_CHECKING:
    from app.kit.engine.api.durable import DurableHuey

OPAQUE = "(opaque)"
"""The task's name of a job that somebody put into the storage as bytes, by hand."""


def kept_for_s(key: str | bytes, ages: Ages) -> float | None:
    """Return how long a value is kept that is no result; None: as long as nobody deletes it."""
    key = key.decode("utf-8", "replace") if isinstance(key, bytes) else key
    if key.startswith("rt:"):
        return None  # a task is revoked until somebody restores it; tasks are as many as the code has
    return ages.failed_s if key.startswith("r:") else KEEP_KEYS_S


class SqlStorage(BaseStorage):
    """Keeps in `postroom_huey_data` what Huey keeps by key; a job's result stays with the job until it expires."""

    def __init__(self, name: str = "huey", huey: DurableHuey | None = None, **ignored: Any) -> None:
        super().__init__(name)
        assert huey is not None
        self.huey = huey

    @property
    def database(self) -> Database:
        """Return the database the queue lives in."""
        return self.huey.database

    # Results, flags and locks by key

    def put_data(self, key: str, value: bytes, is_result: bool = False) -> None:
        """Store a value by key: a result as long as results are kept, all else as its kind needs it."""
        if not is_result:
            self.huey._check_size(value, f"the value of {key}")
        kept_s = self.huey.ages.result_s if is_result else kept_for_s(key, self.huey.ages)
        expires_at = None if kept_s is None else self.huey.now() + kept_s
        sql = "INSERT OR REPLACE INTO postroom_huey_data (key, value, expires_at) VALUES (?, ?, ?)"
        self._write(sql, (key, value, expires_at))

    def peek_data(self, key: str) -> Any:
        """Return the value of a key, or EmptyData."""
        row = self.database.read_one(queries.VALUE, (key, self.huey.now()))
        return EmptyData if row is None else row["value"]

    def peek_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the values of the flags that exist; one that a job has taken is there for nobody else."""
        marks = ", ".join("?" * len(keys))
        sql = f"SELECT key, value FROM postroom_huey_data WHERE key IN ({marks}) AND job IS NULL"
        return {row["key"]: row["value"] for row in self.database.read(sql, tuple(keys))}

    def pop_data(self, key: str) -> Any:
        """Return and forget the value of a key; a job's own result stays until it expires, for its page."""
        found = self.peek_data(key)
        if found is EmptyData or self.database.read(queries.STATE, (key,)):
            return found
        sql = "DELETE FROM postroom_huey_data WHERE key = ? RETURNING value"
        rows = self.database.write(lambda connection: connection.execute(sql, (key,)).fetchall())
        return rows[0]["value"] if rows else EmptyData

    def delete_data(self, key: str) -> bool:
        """Forget a key; an absent one costs no write."""
        if not self.database.read("SELECT 1 FROM postroom_huey_data WHERE key = ?", (key,)):
            return False
        return self._write("DELETE FROM postroom_huey_data WHERE key = ?", (key,)) > 0

    def has_data_for_key(self, key: str) -> bool:
        """Say whether a key has a value."""
        return self.peek_data(key) is not EmptyData

    def take(self, key: str, job: str) -> bool:
        """Take a flag that is for one job only; False when another has it. It comes back if the process dies."""
        return (
            self._write("UPDATE postroom_huey_data SET job = ? WHERE key = ? AND job IS NULL", (job, key)) > 0
        )

    def keys_from(self, start: str) -> list[str]:
        """Name the keys that begin so."""
        sql = "SELECT key FROM postroom_huey_data WHERE substr(key, 1, length(?1)) = ?1"
        return [row["key"] for row in self.database.read(sql, (start,))]

    def put_if_empty(self, key: str, value: bytes, ttl: float | None = None) -> bool:
        """Store a value unless the key has one; with `ttl` (seconds) it frees itself.

        What a body stores goes when its job's process dies. What its helper threads and pages store goes with
        the process, unless it frees itself: so no lock stays behind.
        """
        now, job = self.huey.settled(), self.huey.running_job or (None if ttl else self.huey.lock_owner)
        kept_s = KEEP_KEYS_S if ttl is None else ttl

        def put(connection: sqlite3.Connection) -> bool:
            connection.execute("DELETE FROM postroom_huey_data WHERE key = ? AND expires_at <= ?", (key, now))
            sql = "INSERT OR IGNORE INTO postroom_huey_data VALUES (?, ?, ?, ?)"
            return connection.execute(sql, (key, value, now + kept_s, job)).rowcount == 1

        return self.database.write(put)

    def wait_result(
        self, key: str, timeout: float | None = None, backoff: float = 1.15, max_delay: float = 1.0
    ) -> bool:
        """Block until a job's result is there, called by its end rather than polling.

        Raises: DeadlockError inside a job or a transaction, where the wait could never end; NoResultError when
        there is nothing to wait for: the job was cancelled, say, or is gone.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        return self.huey.wait_for_results([key], deadline)

    # Counters

    def incr(self, key: str, amount: int = 1, expires_at: float | None = None) -> int:
        """Add to a counter and return it; one whose time is over begins anew."""
        now = self.huey.now()
        sql = (
            "INSERT INTO postroom_huey_counters (key, value, expires_at) VALUES (?1, ?2, ?3)"
            " ON CONFLICT (key) DO UPDATE SET"
            " value = ?2 + IIF(expires_at <= ?4, 0, value),"
            " expires_at = IIF(expires_at <= ?4, ?3, MIN(?3, expires_at)) RETURNING value"
        )
        asked = (key, amount, now + KEEP_KEYS_S if expires_at is None else expires_at, now)
        return self.database.write(lambda connection: int(connection.execute(sql, asked).fetchone()[0]))

    def delete_counter(self, key: str) -> None:
        """Forget a counter."""
        self._write("DELETE FROM postroom_huey_counters WHERE key = ?", (key,))

    # The queue as opaque bytes, as Huey's contract has it. The engine itself claims and finishes instead.

    def enqueue(self, data: bytes, priority: float | None = None) -> None:
        """Add bytes to the queue."""
        self._insert(arrivals.NewJob(str(uuid.uuid4()), OPAQUE, data, priority or 0), self.huey.now())

    def dequeue(self) -> bytes | None:
        """Take the next bytes off the queue for good."""
        return self.database.write(claims.take_payload)

    def queue_size(self) -> int:
        """Count the ready jobs."""
        return self._count("ready")

    def enqueued_items(self, limit: int | None = None) -> list[bytes]:
        """Return the ready jobs' payloads, next first."""
        return self._payloads("ready", limit)

    def flush_queue(self) -> None:
        """Drop every ready job."""
        self.database.write(lambda connection: shelf.drop(connection, "ready"))

    def add_to_schedule(self, data: bytes, ts: dt.datetime) -> None:
        """Add bytes to the schedule, be it past or not; `ts` is naive UTC, as everywhere in Huey."""
        run_at = unix_time(ts)
        self._insert(
            arrivals.NewJob(str(uuid.uuid4()), OPAQUE, data, 0, run_at), min(self.huey.now(), run_at - 1)
        )

    def read_schedule(self, ts: dt.datetime) -> list[bytes]:
        """Take the bytes that are due off the schedule."""
        return self.database.write(lambda connection: claims.take_due_payloads(connection, unix_time(ts)))

    def schedule_size(self) -> int:
        """Count the scheduled jobs."""
        return self._count("scheduled")

    def scheduled_items(self, limit: int | None = None) -> list[bytes]:
        """Return the scheduled jobs' payloads, soonest first."""
        return self._payloads("scheduled", limit)

    def flush_schedule(self) -> None:
        """Drop every scheduled job."""
        self.database.write(lambda connection: shelf.drop(connection, "scheduled"))

    def result_store_size(self) -> int:
        """Count the stored values."""
        return len(self.result_items())

    def result_items(self) -> dict[str, bytes]:
        """Return every stored value by its key."""
        return {row["key"]: row["value"] for row in self.database.read(queries.VALUES)}

    def flush_results(self) -> None:
        """Forget every stored value."""
        self._write("UPDATE postroom_jobs SET result = NULL WHERE result IS NOT NULL")
        self._write("DELETE FROM postroom_huey_data")

    def flush_counters(self) -> None:
        """Forget every counter."""
        self._write("DELETE FROM postroom_huey_counters")

    def _write(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        return self.database.write(lambda connection: connection.execute(sql, parameters).rowcount)

    def _insert(self, job: arrivals.NewJob, now: float) -> None:
        self.database.write(lambda connection: arrivals.insert(connection, [job], now))

    def _payloads(self, state: str, limit: int | None) -> list[bytes]:
        rows = self.database.read(queries.PAYLOADS[state], (-1 if limit is None else limit,))
        return [row["payload"] for row in rows]

    def _count(self, state: str) -> int:
        return int(self.database.read(queries.COUNTS)[0][state])


class ImmediateStorage(MemoryStorage):
    """Huey's storage for immediate mode; a wait that the queue would refuse is refused in a test too."""

    def __init__(self, name: str, huey: DurableHuey) -> None:
        super().__init__(name)
        self.huey = huey

    def keys_from(self, start: str) -> list[str]:
        """Name the keys that begin so."""
        return [key for key in self.result_items() if key.startswith(start)]

    def wait_result(self, key: str, *arguments: Any, **options: Any) -> bool:
        """Return True: in immediate mode a job's result is there, or never will be.

        Raises: DeadlockError inside a job or a transaction, NoResultError when the job left none.
        """
        self.huey.refuse_to_wait()
        if not self.has_data_for_key(key):
            raise NoResultError(f"Job {key} has no result: in immediate mode a job runs as it is enqueued.")
        return True
