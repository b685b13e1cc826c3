"""Batch tasks: many small jobs claimed together, one call of the body with the list of their arguments."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import dropwhile
from typing import Any

from huey.exceptions import RETRYING_EXCEPTIONS, CancelExecution, RetryTask

from app.kit.engine.api.wrapper import let_go
from app.kit.engine.careful_log import careful
from app.kit.engine.error_words import words_of
from app.kit.engine.jobs.job import ClaimedJob
from app.kit.engine.times import naive_utc, unix_time

log = careful("postroom.queue")

MEANT_FOR_ALL = (*RETRYING_EXCEPTIONS, CancelExecution)
"""What a body raises to say what is to happen: in a batch it happens to all of its jobs."""


def item_of(args: Sequence[Any]) -> Any:
    """Return a job's entry in the list: its argument, or the tuple of its arguments."""
    return args[0] if len(args) == 1 else tuple(args)


def next_batch_at(now: float, every_s: float) -> float:
    """Return when the batch closes that a job enqueued now belongs to."""
    return (math.floor(now / every_s) + 1) * every_s


def run_at(task: Any, now: float) -> float | None:
    """Return when a task is to run, None for at once: at its eta, or with its batch."""
    every_s = getattr(task, "batch_every_s", None)
    if task.eta is None:
        return next_batch_at(now, every_s) if every_s else None
    return unix_time(task.eta)


def call_with(body: Callable[[list[Any]], Any], items: list[Any]) -> None:
    """Call a batch task's body, which may be a coroutine."""
    returned = body(items)
    if inspect.iscoroutine(returned):
        asyncio.run(returned)


class Batch:
    """One call for several jobs: each asks for its outcome, the first one's asking makes the call."""

    def __init__(self, huey: Any, claimed: Sequence[ClaimedJob]) -> None:
        self.huey = huey
        self.claimed = claimed
        self.timestamp = naive_utc(huey.settled())
        """The moment of the call for all of them: none expires while the body runs for the others."""
        self.alone: set[str] = set()
        """Those to be tried alone: all when the call failed, else those that were not in it."""
        self._called = False
        self._included: set[str] = set()
        self._says: Exception | None = None
        self._barred: dict[str, BaseException | None] = {}
        self._reason = "it could not be in the batch; it is tried alone"

    def call(self, task: Any) -> None:
        """Take part in the call.

        Raises: RetryTask when the call failed: each job is then tried alone, so that only the bad one fails.
        What the body raises to be retried, or cancelled, is raised for every job.
        """
        if not self._called:
            self._called = True
            self._call(task)
        if self._says is not None:
            raise self._says
        if task.id not in self._included:
            self.alone.add(task.id)
            raise RetryTask(self._reason, delay=0)

    def has_run(self, task: Any) -> bool:
        """Say whether a job was in the call: then it is too late to revoke it."""
        return task.id in self._included

    def run_hooks(self, task: Any, run: Callable[[Any], None]) -> None:
        """Run a job's pre_execute hooks, once: all before the call, which is made without those they cancel."""
        if task.id not in self._barred:
            self._barred[task.id] = None
            try:
                run(task)
            except BaseException as error:
                self._barred[task.id] = error
        barred = self._barred[task.id]
        if barred is not None:
            raise barred

    def _call(self, task: Any) -> None:
        items = self._gather(task)
        try:
            call_with(task.batch_body, items)
        except MEANT_FOR_ALL as error:
            self._says = error
        except BaseException as error:  # sys.exit too: no job may seem done that was not
            log.exception("A batch of %d %s failed; each is tried alone", len(items), task.name)
            let_go(error)
            self._included.clear()
            self._reason = f"the batch it was in failed ({words_of(error)}); it is tried alone"

    def _gather(self, first: Any) -> list[Any]:
        """Gather the arguments of the jobs that are to run: not those revoked, expired or cancelled by a hook."""
        items = []
        # Those before the first had their turn, and were revoked, or could not be read.
        for job in dropwhile(lambda job: job.uuid != first.id, self.claimed):
            try:
                task = first if job.uuid == first.id else self.huey.task_of(job)
            except Exception:
                continue  # it fails by itself, with its reason, when its turn comes
            if task.kwargs:
                continue  # a body has no names for its items; alone, Python says so
            late = task.expires_resolved and task.expires_resolved < self.timestamp
            if task is not first and (late or self.huey.is_revoked(task, self.timestamp, True)):
                continue
            with suppress(BaseException):  # it is told so when its turn comes
                if self.huey._pre_execute:
                    self.huey._run_pre_execute(task)
                items.append(item_of(task.args))
                self._included.add(task.id)
        return items
