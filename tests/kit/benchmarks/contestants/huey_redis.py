"""Huey as it comes, on Redis: a job is taken out of its list when it starts."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from huey import RedisHuey

from tests.kit.benchmarks.marks import mark

NAME = "Huey, Redis"
PACKAGES = ("huey", "redis")
NEEDS_REDIS = True
MAY_START_EARLY = False
DRAIN_JOBS = 4_000
IN_BULK = "task.map, one call a job"
DURABLE = "nothing past the last snapshot of Redis; nothing once it has started"
# Four threads, which is its default kind of worker.
WORKERS = [["huey_consumer", "tests.kit.benchmarks.contestants.huey_redis.huey", "-w", "4"]]
WEB = "tests.kit.benchmarks.contestants.site:app"

huey = RedisHuey(url=os.environ["BENCHMARK_REDIS"])


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
    """Block until the result is there."""
    return handle.get(blocking=True, timeout=timeout_s)


def waiting() -> int:
    """Count the jobs in its lists."""
    return int(huey.pending_count() + huey.scheduled_count())
