"""Batch tasks: many small jobs claimed together, one call of the body with the list of their arguments."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

from huey.exceptions import RetryTask

from tasks.engine.jobs import ClaimedJob

log = logging.getLogger("postroom.queue")


def item_of(args: Sequence[Any]) -> Any:
    """Return a job's entry in the list: its argument, or the tuple of its arguments."""
    return args[0] if len(args) == 1 else tuple(args)


def next_batch_at(now: float, every_s: float) -> float:
    """Return when the batch closes that a job enqueued now belongs to."""
    return (math.floor(now / every_s) + 1) * every_s


class Batch:
    """One call for several jobs: each asks for its outcome, the first one's asking makes the call."""

    def __init__(self, huey: Any, claimed: Sequence[ClaimedJob]) -> None:
        self.huey = huey
        self.claimed = claimed
        self.failed = False
        self._called = False
        self._reason = ""

    def call(self, task: Any) -> None:
        """Take part in the call.

        Raises: RetryTask when the call failed: each job is then tried alone, so that only the bad one fails.
        """
        if not self._called:
            self._called = True
            try:
                task.batch_body(self._items(task))
            except Exception as error:
                log.exception("A batch of %d %s failed; each is tried alone", len(self.claimed), task.name)
                self.failed = True
                self._reason = (
                    f"the batch it was in failed ({type(error).__name__}: {error}); it is tried alone"
                )
        if self.failed:
            raise RetryTask(self._reason)

    def _items(self, first: Any) -> list[Any]:
        """Gather the arguments of the jobs that are to run: not those revoked or expired."""
        timestamp, items = self.huey._get_timestamp(), []
        for job in self.claimed:
            try:
                task = self.huey.deserialize_task(job.payload)
            except Exception:
                continue  # it fails by itself, with its reason, when its turn comes
            late = task.expires_resolved and task.expires_resolved < timestamp
            if task.id == first.id or not (late or self.huey.is_revoked(task, timestamp, True)):
                items.append(item_of(task.args))
        return items
