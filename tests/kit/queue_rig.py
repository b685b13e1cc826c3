"""The queue's verbs over a database of a test's own, one commit each: what another store would have to offer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.kit.database.file import Database
from app.kit.engine.jobs import claim as claims, enqueue as arrivals, job as jobs
from app.kit.engine.jobs.enqueue import NewJob
from app.kit.engine.jobs.job import ChordPart, ClaimedJob, Ending
from app.kit.engine.jobs.schema import STATES, migrations

NOW = 1_000_000.0
COUNTED = "SELECT task, state, COUNT(*) FROM postroom_jobs GROUP BY task, state"


class Queue:
    """The verbs over a database, one commit each."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.rules = claims.Rules()

    def insert(self, *uuids: str, limit: int | None = None, **fields: Any) -> None:
        self.insert_jobs([NewJob(uuid, "a_task", b"{}", **fields) for uuid in uuids], NOW, limit)

    def insert_jobs(self, new: list[NewJob], now: float, limit: int | None) -> None:
        self.database.write(lambda connection: arrivals.insert(connection, new, now, limit))

    def claim(self, instance: str = "i1", now: float = NOW) -> list[ClaimedJob]:
        rules = self.rules
        return self.database.write(lambda c: claims.claim(c, instance, "Worker-1", now, rules))

    def claim_one(self, instance: str = "i1") -> ClaimedJob:
        (job,) = self.claim(instance)
        return job

    def finish(self, job: ClaimedJob, ending: Ending, now: float = NOW) -> bool:
        return self.database.write(lambda connection: jobs.finish(connection, [(job, ending)], now)) == [True]

    def free(self, instance: str = "i1") -> list[str]:
        freed = self.database.write(lambda connection: jobs.free(connection, instance, NOW))
        return [job.uuid for job in freed]

    def set_starting(self, job: ClaimedJob, starting: bool) -> None:
        self.database.write(lambda connection: jobs.set_starting(connection, job, starting))

    def shelve(self, uuid: str, reason: str) -> None:
        self.database.write(lambda connection: jobs.shelve(connection, uuid, reason, NOW))

    def promote(self, now: float) -> int:
        return self.database.write(lambda connection: jobs.promote(connection, now))

    def add_part(self, part: ChordPart) -> list[bytes] | None:
        return self.database.write(lambda connection: jobs.add_chord_part(connection, part, NOW, 1000))

    def join(self, instance: str, state: str = "running") -> None:
        row = (instance, 1, 1, state, 0, NOW)
        self.database.write(
            lambda c: c.execute("INSERT INTO postroom_instances VALUES (?, ?, ?, ?, ?, ?)", row)
        )

    def row(self, uuid: str) -> dict[str, Any]:
        row = self.database.read_one("SELECT * FROM postroom_jobs WHERE uuid = ?", (uuid,))
        assert row is not None
        return dict(row)

    def all(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.database.read(sql)]

    def attempts(self) -> list[tuple[Any, ...]]:
        return self.all("SELECT number, outcome, error FROM postroom_attempts ORDER BY rowid")

    def counts_are_true(self) -> bool:
        counted = {(task, state): n for task, state, n in self.all(COUNTED)}
        rows = [dict(row) for row in self.database.read("SELECT * FROM postroom_task_counts")]
        kept = {(row["task"], state): row[state] for row in rows for state in STATES if row[state]}
        return kept == counted


def count_anew(connection: sqlite3.Connection) -> None:
    """Count the jobs by task and state: for tests that write rows which never came in by the door."""
    sums = ", ".join(f"SUM(state = '{state}')" for state in STATES)
    connection.execute(
        f"INSERT INTO postroom_task_counts (task, {', '.join(STATES)})"
        f" SELECT task, {sums} FROM postroom_jobs GROUP BY task"
        f" ON CONFLICT (task) DO UPDATE SET {', '.join(f'{state} = excluded.{state}' for state in STATES)}"
    )


@contextmanager
def queue_in(folder: Path) -> Iterator[Queue]:
    """Make an empty queue; at the end its counts must be what can be counted."""
    database = Database(folder / "queue.db", synchronous="NORMAL", migrations=[migrations])
    queue = Queue(database)
    try:
        yield queue
        assert queue.counts_are_true()
    finally:
        database.close()
