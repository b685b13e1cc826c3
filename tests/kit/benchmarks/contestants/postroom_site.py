"""The kit's own site with the tasks that are measured, and the routes that enqueue them; for gunicorn.conf.py."""

from __future__ import annotations

import time
from typing import Any

import tasks
from app import create_app
from app.bookshop import books as catalogue
from app.kit.database.file import database
from tests.kit.benchmarks.marks import mark

BODY_S = 0.02


@tasks.task()
def note(n: int) -> int:
    """Note that job n runs."""
    return mark(n)


@tasks.task()
def no_op(n: int) -> int:
    """Do nothing."""
    return n


@tasks.task()
def io(n: int) -> int:
    """Wait, as for another machine."""
    time.sleep(BODY_S)
    return n


@tasks.task()
def cpu(n: int) -> int:
    """Compute in a thread of the site."""
    return compute(n)


@tasks.task(process=True)
def cpu_process(n: int) -> int:
    """Compute in a process of its own."""
    return compute(n)


def compute(n: int) -> int:
    """Use up the CPU time of a body in plain Python, and return n."""
    ends_at = time.thread_time() + BODY_S
    total = 0
    while time.thread_time() < ends_at:
        for number in range(1000):
            total += number * number
    return n


KINDS = {"no_op": no_op, "io": io, "cpu": cpu, "cpu_process": cpu_process}

app = create_app()


@app.get("/api/benchmark")
def settings() -> dict[str, Any]:
    """Say what could have been switched off to be fast."""
    with database.transaction() as connection:
        pragmas = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "journal_mode")
        }
    return pragmas | {
        "environment": app.extensions["settings"].environment,
        "max_pending_jobs": tasks.huey.max_pending_jobs,
        "task_threads": app.extensions["settings"].task_threads,
    }


@app.post("/api/enqueue/<int(signed=True):n>")
def enqueue(n: int) -> tuple[str, int]:
    """Enqueue job n."""
    note(n)
    return "accepted", 202


@app.post("/api/benchmark/books/<int:count>")
def add_books(count: int) -> tuple[str, int]:
    """Add books, as many as the first page shows or more."""
    with database.transaction():
        for n in range(count):
            catalogue.add_book(f"Book {n}", "Ada Quill", "Mystery")
    return "added", 201


@app.post("/api/benchmark/fill/<kind>/<int:count>")
def fill(kind: str, count: int) -> tuple[str, int]:
    """Enqueue many jobs of a kind in one transaction."""
    KINDS[kind].map(range(count))
    return "accepted", 202


@app.post("/api/benchmark/empty")
def empty() -> str:
    """Drop the jobs that wait."""
    tasks.huey.storage.flush_queue()
    return "dropped"
