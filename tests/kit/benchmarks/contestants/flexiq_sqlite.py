"""FlexiQ as it comes, on SQLite: a scheduler in Rust looks for jobs and hands them to threads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flexiq import Queue

from tests.kit.benchmarks.marks import mark

NAME = "FlexiQ, SQLite"
PACKAGES = ("flexiq",)
NEEDS_REDIS = False
MAY_START_EARLY = False
DRAIN_JOBS = 500
IN_BULK = "task.map, one transaction"
DURABLE = "kill -9 (what it had comes back within a minute); a power cut may take the last moments"
# Four threads, its default kind of worker; how many the queue says, not the command. Its variable for the level
# of its log spares it two lines a job, which are its default.
WORKERS = [
    [
        "env",
        "FLEXIQ_LOG_LEVEL=WARNING",
        "flexiq",
        "worker",
        "--app",
        "tests.kit.benchmarks.contestants.flexiq_sqlite:queue",
    ]
]
WEB = "tests.kit.benchmarks.contestants.site:app"

queue = Queue(db_path=str(Path(os.environ["BENCHMARK_FOLDER"]) / "flexiq.db"), workers=4)


@queue.task()
def note(n: int) -> int:
    """Note that job n runs."""
    return mark(n)


def enqueue(n: int) -> Any:
    """Enqueue one job."""
    return note.delay(n)


def enqueue_many(numbers: Iterable[int]) -> None:
    """Enqueue many in one transaction."""
    note.map([(n,) for n in numbers])


def enqueue_in(n: int, delay_s: float) -> Any:
    """Enqueue one job for later."""
    return note.apply_async((n,), delay=delay_s)


def wait(handle: Any, timeout_s: float) -> Any:
    """Block until the result is there; FlexiQ looks for it again and again, ever more slowly."""
    return handle.result(timeout=timeout_s)


def waiting() -> int:
    """Count the rows that wait.

    It asks FlexiQ, which has an SQLite of its own. Python's would not see the locks of that one in this process:
    closing its connection would delete the log that FlexiQ writes to.
    """
    return int(queue.stats()["pending"])
