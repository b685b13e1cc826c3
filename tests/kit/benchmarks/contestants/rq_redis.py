"""RQ as it comes, on Redis: a worker forks a process for each job."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from redis import Redis
from rq import Queue

from tests.kit.benchmarks.marks import mark

NAME = "RQ"
PACKAGES = ("rq", "redis")
NEEDS_REDIS = True
MAY_START_EARLY = True
DRAIN_JOBS = 400
IN_BULK = "enqueue_many, one pipeline"
DURABLE = "kill -9 of its workers until it starts (then it fails); of Redis what the snapshot has"
# Four processes of the default class. The pool's workers bring the scheduler that enqueue_in needs. `--quiet`
# spares it three lines of log a job, which are its default.
WORKERS = [["rq", "worker-pool", "--url", os.environ["BENCHMARK_REDIS"], "--num-workers", "4", "--quiet"]]
WEB = "tests.kit.benchmarks.contestants.site:app"

# Jobs name `mark` itself: the process forked for a job imports the job's module, and that one is small.
queue = Queue(connection=Redis.from_url(os.environ["BENCHMARK_REDIS"]))


def enqueue(n: int) -> Any:
    """Enqueue one job."""
    return queue.enqueue(mark, n)


def enqueue_many(numbers: Iterable[int]) -> None:
    """Enqueue a job for each number in one pipeline."""
    queue.enqueue_many([Queue.prepare_data(mark, (n,)) for n in numbers])


def enqueue_in(n: int, delay_s: float) -> Any:
    """Enqueue one job for later."""
    return queue.enqueue_in(timedelta(seconds=delay_s), mark, n)


def wait(handle: Any, timeout_s: float) -> Any:
    """Block until Redis has the result; whole seconds are all it takes."""
    result = handle.latest_result(timeout=math.ceil(timeout_s))
    return result.return_value if result else None


def waiting() -> int:
    """Count the jobs in its list and in its schedule."""
    return int(queue.count + queue.scheduled_job_registry.get_job_count(cleanup=False))
