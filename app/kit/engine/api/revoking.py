"""Revoke flags as a job meets them: which are used up by it, and which have done their work when it ends."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

from huey.constants import EmptyData

from app.kit.engine.body.outcome import Outcome
from app.kit.engine.jobs import job as jobs


def meets_flag(huey: Any, task: Any, timestamp: dt.datetime | None, peek: bool, outcome: Outcome) -> bool:
    """Say whether a flag keeps a job from running, and note the one that it uses up."""
    keys = huey._revoke_keys(task)
    found = huey.storage.peek_many(keys)
    for key in keys:
        revoked, is_used_up = huey._check_revoked(found.get(key, EmptyData), timestamp, peek)
        # A flag that is for one run of a task: of the workers that see it at once, one has it.
        if revoked and is_used_up and key.startswith("rt:") and not huey.storage.take(key, outcome.uuid):
            continue
        if is_used_up:
            huey.delete(key)
        if revoked:
            return True
    return False


def done_with(ended: Iterable[tuple[jobs.ClaimedJob, jobs.Ending, Outcome]]) -> list[str]:
    """Name the jobs whose own flags have done their work; one that is tried again has yet to meet it."""
    return [job.uuid for job, ending, outcome in ended if outcome.forgets_flag and ending.state in jobs.ENDED]
