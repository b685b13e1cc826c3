"""Dramatiq on Redis with its results: a job is acknowledged when it is done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from tests.kit.benchmarks.marks import mark

NAME = "Dramatiq + Redis"
PACKAGES = ("dramatiq", "redis")
NEEDS_REDIS = True
MAY_START_EARLY = False
DRAIN_JOBS = 4_000
IN_BULK = "group, one call a job"
DURABLE = "kill -9 of its workers (minutes later); of Redis what the snapshot has"
# Its default is 8 threads a process and as many processes as there are cores. A job is no line of its log.
WORKERS = [
    ["dramatiq", "tests.kit.benchmarks.contestants.dramatiq_redis", "--processes", "1", "--threads", "4"],
]
WEB = "tests.kit.benchmarks.contestants.site:app"

broker = RedisBroker(url=os.environ["BENCHMARK_REDIS"])
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BENCHMARK_REDIS"])))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def note(n: int) -> int:
    """Note that job n runs."""
    return mark(n)


def enqueue(n: int) -> Any:
    """Enqueue one job."""
    return note.send(n)


def enqueue_many(numbers: Iterable[int]) -> None:
    """Enqueue a job for each number."""
    dramatiq.group(note.message(n) for n in numbers).run()


def enqueue_in(n: int, delay_s: float) -> Any:
    """Enqueue one job for later."""
    return note.send_with_options(args=(n,), delay=int(delay_s * 1000))


def wait(handle: Any, timeout_s: float) -> Any:
    """Block until Redis has the result."""
    return handle.get_result(block=True, timeout=int(timeout_s * 1000))


def waiting() -> int:
    """Count the jobs in its list and in that of the delayed ones."""
    return int(broker.client.llen("dramatiq:default") + broker.client.llen("dramatiq:default.DQ"))
