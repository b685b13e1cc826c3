"""Postroom itself; BENCHMARK_SYNCHRONOUS (FULL or NORMAL) says how its commits reach the disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tasks
from app import create_app
from app.kit.host import logs
from app.settings import Settings
from tests.kit.benchmarks.marks import mark

SYNCHRONOUS = os.environ["BENCHMARK_SYNCHRONOUS"]
PRAGMA_SYNCHRONOUS = {"FULL": 2, "NORMAL": 1}

NAME = f"Postroom {SYNCHRONOUS}"
PACKAGES = ("huey", "filelock", "flask", "gunicorn")
NEEDS_REDIS = False
MAY_START_EARLY = False
DRAIN_JOBS = 10_000
IN_BULK = "task.map, one transaction"
DURABLE = {"FULL": "a power cut", "NORMAL": "kill -9; a power cut may take the last moments"}[SYNCHRONOUS]
WORKERS: list[list[str]] = []


@tasks.task()
def note(n: int) -> int:
    """Note that job n runs."""
    return mark(n)


sys.setswitchinterval(0.001)  # as gunicorn.conf.py has it, like all that follows
settings = Settings(
    data_dir=Path(os.environ["BENCHMARK_FOLDER"]),
    sqlite_synchronous=SYNCHRONOUS,
    mail_url=os.environ.get("BENCHMARK_MAIL_URL", ""),
)
logs.configure(settings.log_level)
app = create_app(settings)
database = app.extensions["database"]


def enqueue(n: int) -> Any:
    """Enqueue one job."""
    return note(n)


def enqueue_many(numbers: Iterable[int]) -> None:
    """Enqueue many in one transaction."""
    note.map(numbers)


def enqueue_in(n: int, delay_s: float) -> Any:
    """Enqueue one job for later."""
    return note.schedule((n,), delay=delay_s)


def wait(handle: Any, timeout_s: float) -> Any:
    """Block until the result is there."""
    return handle.get(blocking=True, timeout=timeout_s)


def waiting() -> int:
    """Count the rows that wait."""
    return _count("state IN ('ready', 'scheduled')")


@contextmanager
def consuming() -> Iterator[None]:
    """Run jobs in this process."""
    consumer = tasks.huey.create_consumer(workers=4)
    consumer.start()
    try:
        yield
    finally:
        consumer.stop()


def check_ran(count: int) -> None:
    """Check that nothing was switched off to be fast: the file, the limits, the rows, the results, the fences."""
    check_file()
    assert tasks.huey.max_pending_jobs == 100_000 == Settings().max_pending_jobs
    assert tasks.huey.wait_until_idle(30), "jobs still run"
    done = _count("state = 'done' AND result IS NOT NULL AND finished_at IS NOT NULL")
    assert done == count, f"{count} jobs ran, {done} are done and have a result"
    assert _count("claim > 0 AND attempt = 1") == count, "a job ran without a fence, or more than once"


def check_file() -> None:
    """Check that commits reach the disk as they should."""
    with database.transaction() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == PRAGMA_SYNCHRONOUS[SYNCHRONOUS]
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def _count(condition: str) -> int:
    name = tasks.huey._registry.task_to_string(type(note.s(0)))
    rows = database.read(f"SELECT COUNT(*) FROM postroom_jobs WHERE task = ? AND {condition}", (name,))
    return int(rows[0][0])
