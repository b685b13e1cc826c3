"""Celery on Redis, told to acknowledge a job only when it is done, as its documentation advises for safety."""

from __future__ import annotations

from tests.kit.benchmarks.contestants.celery_redis import (
    DRAIN_JOBS,
    IN_BULK,
    MAY_START_EARLY,
    NEEDS_REDIS,
    PACKAGES,
    WEB,
    app,
    enqueue,
    enqueue_in,
    enqueue_many,
    wait,
    waiting,
)

__all__ = [
    "DRAIN_JOBS",
    "DURABLE",
    "IN_BULK",
    "MAY_START_EARLY",
    "NAME",
    "NEEDS_REDIS",
    "PACKAGES",
    "WEB",
    "WORKERS",
    "app",
    "enqueue",
    "enqueue_in",
    "enqueue_many",
    "wait",
    "waiting",
]

NAME = "Celery + Redis, acks_late"
DURABLE = "kill -9 of its workers (an hour later); of Redis what the snapshot has"
WORKERS = [["celery", "-A", "tests.kit.benchmarks.contestants.celery_acks_late", "worker", "-c", "4"]]

app.conf.task_acks_late = True
