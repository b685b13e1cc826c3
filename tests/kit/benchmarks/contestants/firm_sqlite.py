"""firm-queue as it comes, on SQLite: a worker process of its own polls the tables."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import firm.queue
from firm.queue import schema

from tests.kit.benchmarks.marks import mark

NAME = "firm-queue, SQLite"
PACKAGES = ("firm-queue", "firm-core", "sqlalchemy")
NEEDS_REDIS = False
MAY_START_EARLY = False
DRAIN_JOBS = 200
IN_BULK = "one by one: it has no bulk call"
DURABLE = "kill -9 (what it ran comes back in 5 minutes); a power cut may take the last moments"
FOLDER = Path(os.environ["BENCHMARK_FOLDER"])
FILE = FOLDER / "firm.db"
URL = f"sqlite:///{FILE}"
# Beside a site its documentation runs a command of its own; workers inside the web process are for development.
WORKERS = [
    [
        "firm-queue",
        "start",
        "--database-url",
        URL,
        "--import",
        "tests.kit.benchmarks.contestants.firm_sqlite",
        "--threads",
        "4",
    ]
]
WEB = "tests.kit.benchmarks.contestants.site:app"

runtime = firm.queue.configure(database_url=URL)
with (FOLDER / "schema.lock").open("w") as lock:  # the site and the workers may start at the same moment
    fcntl.flock(lock, fcntl.LOCK_EX)
    schema.create_all(runtime.engine)
runtime.reset()  # its worker command forks, and no connection crosses a fork


@firm.queue.job()
def note(n: int) -> int:
    """Note that job n runs."""
    return mark(n)


def enqueue(n: int) -> Any:
    """Enqueue one job."""
    return note.enqueue(n)


def enqueue_many(numbers: Iterable[int]) -> None:
    """Enqueue a job for each number."""
    for n in numbers:
        note.enqueue(n)


def enqueue_in(n: int, delay_s: float) -> Any:
    """Enqueue one job for later."""
    return note.enqueue_in(timedelta(seconds=delay_s), n)


wait = None  # it keeps no results


def waiting() -> int:
    """Count the rows that wait."""
    with closing(sqlite3.connect(FILE)) as connection:
        tables = ("firm_queue_ready_executions", "firm_queue_scheduled_executions")
        return sum(int(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]) for table in tables)
