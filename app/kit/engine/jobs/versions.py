"""Jobs of a newer version of the code that meet an older one: they are left to it, or wait for it (P2)."""

from __future__ import annotations

from typing import Any

from huey.exceptions import HueyException, RetryTask

from app.kit.engine.body.outcome import Outcome
from app.kit.engine.careful_log import careful
from app.kit.engine.jobs.job import ClaimedJob

log = careful("postroom.queue")

MAX_WAITS_FOR_NEWER = 20
LOOK_FOR_NEWER_S = 30.0
"""While a site is updated, jobs of its new tasks may meet the older version alone: it has ten minutes' patience."""


def waits_for_newer(huey: Any, job: ClaimedJob, outcome: Outcome, error: BaseException) -> bool:
    """Put a job off whose task no living process has, for a time, if a newer version may have enqueued it."""
    is_unknown = isinstance(error, HueyException)
    if not is_unknown or job.enqueued_at < huey.consumes_since or job.waits >= MAX_WAITS_FOR_NEWER:
        return False
    log.warning("Job %s waits for a process that has its task: %s", job.uuid, error)
    outcome.note_exception(RetryTask(f"{error}; it waits for a process of a newer version"), "")
    outcome.retrying, outcome.run_at = True, huey.now() + LOOK_FOR_NEWER_S
    outcome.retries, outcome.retry_delay = job.retries, job.retry_delay
    return True
