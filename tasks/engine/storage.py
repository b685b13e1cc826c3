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

from app.database import Database
from app.errors import NoResultError
from tasks.engine import arrivals, claims, queries, shelf
from tasks.engine.times import unix_time

if TYPE_CHECKING:
    from tasks.engine.durable import DurableHuey

OPAQUE = "(opaque)"
"""The task's name of a job that somebody put into the storage as bytes, by hand."""


class SqlStorage(BaseStorage):
    """Keeps what Huey keeps by key in `huey_data`; a job's own result stays with the job until it expires."""

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
        """Store a value by key; a result as long as results are kept."""
        expires_at = self.huey.now() + self.huey.ages.result_s if is_result else None
        sql = "INSERT OR REPLACE INTO postroom_huey_data (key, value, expires_at) VALUES (?, ?, ?)"
        self._write(sql, (key, value, expires_at))

    def peek_data(self, key: str) -> Any:
        """Return the value of a key, or EmptyData."""
        row = self.database.read_one(queries.VALUE, (key, self.huey.now()))
        return EmptyData if row is None else row["value"]

    def peek_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the values of the keys that exist (flags and locks; never results)."""
        marks = ", ".join("?" * len(keys))
        sql = f"SELECT key, value FROM postroom_huey_data WHERE key IN ({marks})"
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

    def put_if_empty(self, key: str, value: bytes, ttl: float | None = None) -> bool:
        """Store a value unless the key has one; with `ttl` (seconds) it frees itself.

        What a body stores goes when the job's process dies, so that no lock stays behind.
        """
        now, job = self.huey.settled(), self.huey.running_job

        def put(connection: sqlite3.Connection) -> bool:
            connection.execute("DELETE FROM postroom_huey_data WHERE key = ? AND expires_at <= ?", (key, now))
            expires_at = None if ttl is None else now + ttl
            sql = "INSERT OR IGNORE INTO postroom_huey_data VALUES (?, ?, ?, ?)"
            return connection.execute(sql, (key, value, expires_at, job)).rowcount == 1

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

    def incr(self, key: str, amount: int = 1) -> int:
        """Add to a counter and return it."""
        sql = (
            "INSERT INTO postroom_huey_counters VALUES (?, ?) ON CONFLICT (key)"
            " DO UPDATE SET value = value + excluded.value RETURNING value"
        )
        return self.database.write(
            lambda connection: int(connection.execute(sql, (key, amount)).fetchone()[0])
        )

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

    def wait_result(self, key: str, *arguments: Any, **options: Any) -> bool:
        """Return True: in immediate mode a job's result is there, or never will be.

        Raises: DeadlockError inside a job or a transaction, NoResultError when the job left none.
        """
        self.huey.refuse_to_wait()
        if not self.has_data_for_key(key):
            raise NoResultError(f"Job {key} has no result: in immediate mode a job runs as it is enqueued.")
        return True
