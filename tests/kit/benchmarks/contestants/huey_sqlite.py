"""Huey as it comes, on SQLite: commits wait for the disk, and a job is deleted when it starts."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huey import SqliteHuey

from tests.kit.benchmarks.marks import mark

NAME = "Huey, SQLite"
PACKAGES = ("huey",)
NEEDS_REDIS = False
MAY_START_EARLY = False
DRAIN_JOBS = 4_000
IN_BULK = "task.map, one commit a job"
DURABLE = "a power cut while it waits; nothing once it has started"
# Four threads, which is its default kind of worker.
WORKERS = [["huey_consumer", "tests.kit.benchmarks.contestants.huey_sqlite.huey", "-w", "4"]]
WEB = "tests.kit.benchmarks.contestants.site:app"

huey = SqliteHuey(filename=str(Path(os.environ["BENCHMARK_FOLDER"]) / "huey.db"))


@huey.task()
def note(n: int) -> int:
    """Note that job n runs."""
    return mark(n)


def enqueue(n: int) -> Any:
    """Enqueue one job."""
    return note(n)


def enqueue_many(numbers: Iterable[int]) -> None:
    """Enqueue a job for each number."""
    note.map(numbers)


def enqueue_in(n: int, delay_s: float) -> Any:
    """Enqueue one job for later."""
    return note.schedule((n,), delay=delay_s)


def wait(handle: Any, timeout_s: float) -> Any:
    """Block until the result is there; Huey looks for it again and again, ever more slowly."""
    return handle.get(blocking=True, timeout=timeout_s)


def waiting() -> int:
    """Count the jobs in its tables."""
    return int(huey.pending_count() + huey.scheduled_count())
