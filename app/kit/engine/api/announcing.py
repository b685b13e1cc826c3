"""Huey's signals of jobs that come: to the queue, to the schedule, and from there to the queue."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from huey.signals import SIGNAL_ENQUEUED, SIGNAL_SCHEDULED

from app.kit.engine.body.batch import run_at
from app.kit.engine.body.notes import NotingHuey
from app.kit.engine.body.outcome import Outcome
from app.kit.engine.jobs.job import ClaimedJob
from app.kit.engine.times import naive_utc


def is_heard(huey: NotingHuey) -> bool:
    """Say whether anybody wants these signals."""
    heard = huey._signal.receivers
    return any(heard.get(name) for name in ("any", SIGNAL_ENQUEUED, SIGNAL_SCHEDULED))


def arrival(huey: NotingHuey, task: Any, due_at: float | None) -> None:
    """Send the signals for a job that is enqueued, and scheduled if its time has not come."""
    huey._emit(SIGNAL_ENQUEUED, task)
    if due_at is not None and due_at > huey.now():
        huey._emit(SIGNAL_SCHEDULED, task)


def what_followed(huey: NotingHuey, outcome: Outcome) -> None:
    """Send the signals for what was enqueued with a job's end, and for the job itself if it runs again."""
    followed = outcome.announced or outcome.fired_callback is not None or outcome.retrying
    if not followed or not is_heard(huey):
        return
    with huey.app_context():
        for task in (*outcome.announced, outcome.fired_callback):
            if task is not None:
                arrival(huey, task, run_at(task, huey.now()))
        if outcome.retrying and outcome.requeued is not None:
            task = outcome.requeued
            task.eta = None if outcome.run_at is None else naive_utc(outcome.run_at)
            huey._emit(SIGNAL_ENQUEUED if task.eta is None else SIGNAL_SCHEDULED, task)


def fired(huey: NotingHuey, tasks: Sequence[Any]) -> None:
    """Send the signal for jobs that the clock puts into the queue."""
    if tasks and is_heard(huey):
        with huey.app_context():
            for task in tasks:
                huey._emit(SIGNAL_ENQUEUED, task)


def promoted(huey: Any, due: Sequence[ClaimedJob]) -> None:
    """Send the signals for jobs whose time has come."""
    tasks = []
    for job in due:
        with suppress(Exception):  # one that cannot be read fails when its turn comes
            tasks.append(huey.task_of(job))
    fired(huey, tasks)
