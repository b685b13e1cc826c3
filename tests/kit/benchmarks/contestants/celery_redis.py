"""Celery as it comes, on Redis: a job is acknowledged when it starts."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from celery import Celery, group
from redis import Redis

from tests.kit.benchmarks.marks import mark

NAME = "Celery + Redis"
PACKAGES = ("celery", "kombu", "redis")
NEEDS_REDIS = True
MAY_START_EARLY = False
DRAIN_JOBS = 2_000
IN_BULK = "group, one call a job on one connection"
DURABLE = "kill -9 of its workers until it starts (an hour later); of Redis what the snapshot has"
# Its default pool: four processes. It logs warnings only, unless told otherwise.
WORKERS = [["celery", "-A", "tests.kit.benchmarks.contestants.celery_redis", "worker", "-c", "4"]]
WEB = "tests.kit.benchmarks.contestants.site:app"

# It keeps no results unless it is given a backend for them, which wait() needs.
app = Celery("benchmark", broker=os.environ["BENCHMARK_REDIS"], backend=os.environ["BENCHMARK_REDIS"])
redis = Redis.from_url(os.environ["BENCHMARK_REDIS"])


@app.task
def note(n: int) -> int:
    """Note that job n runs."""
    return mark(n)


def enqueue(n: int) -> Any:
    """Enqueue one job."""
    return note.delay(n)


def enqueue_many(numbers: Iterable[int]) -> None:
    """Enqueue a job for each number."""
    group(note.s(n) for n in numbers).apply_async()


def enqueue_in(n: int, delay_s: float) -> Any:
    """Enqueue one job for later."""
    return note.apply_async((n,), countdown=delay_s)


def wait(handle: Any, timeout_s: float) -> Any:
    """Block until Redis publishes the result."""
    return handle.get(timeout=timeout_s)


def waiting() -> int:
    """Count the jobs in its list, and those that a worker took out but did not acknowledge."""
    return int(redis.llen("celery") + redis.hlen("unacked"))
